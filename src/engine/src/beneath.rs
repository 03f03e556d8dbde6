//! Folders in which somebody else may write: sandboxes, whose containers run as users of their own while the executor
//! and the agent may be root.
//!
//! Whatever is opened, made or given away below such a [`Folder`] is reached from its descriptor and through no link, is
//! changed by its own descriptor, and is written to only if it is a plain file that bears no second name. What a
//! container puts in the way is refused or replaced; it never leads anywhere.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use crate::executor::Account;

/// Others may pass through, and list nothing.
const PASSABLE: Mode = Mode::from_raw_mode(0o751);
/// What reading a folder takes of its owner's, group's or others' bits.
const LOOK_INTO: u32 = 0o5;
/// Of a folder that nobody was given yet: the sticky bit, which says nothing else of a folder that is one user's, tells it from one
/// that was given to who we are.
pub(crate) const NOBODYS: u32 = 0o1700;
const PRIVATE: Mode = Mode::from_raw_mode(0o750);

/// An open folder. Paths are relative to it, and consist of names.
#[derive(Debug, Clone)]
pub(crate) struct Folder(Arc<OwnedFd>);

impl Folder {
    /// The folder at a path whose parts are all in trusted hands: links on the way are followed.
    pub fn open(path: &Path) -> io::Result<Folder> {
        let folder = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Folder(Arc::new(folder)))
    }

    fn at(&self, within: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        // Nobody on the other side of a pipe is waited for.
        let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        rustix::fs::openat2(&*self.0, within, flags, mode, resolve).map_err(|error| match error {
            Errno::LOOP => io::Error::other(format!("there is a link at '{}', or on the way there", within.display())),
            Errno::NOSYS => io::Error::other("this kernel has no openat2: Linux 5.6 or newer is needed"),
            error => error.into(),
        })
    }

    /// The folder around a path, and the last name of it.
    fn around<'a>(&self, within: &'a Path) -> io::Result<(Folder, &'a OsStr)> {
        let name = within.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = within.parent().filter(|parent| !parent.as_os_str().is_empty());
        Ok((parent.map_or_else(|| Ok(self.clone()), |parent| self.folder(parent))?, name))
    }

    /// A folder that is there.
    pub fn folder(&self, within: &Path) -> io::Result<Folder> {
        Ok(Folder(Arc::new(self.at(within, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?)))
    }

    /// A folder, made for `account` when it is missing, as are those on the way, through which others may pass.
    pub fn make(&self, within: &Path, account: Option<Account>) -> io::Result<Folder> {
        self.make_as(within, PRIVATE, account)
    }

    fn make_as(&self, within: &Path, mode: Mode, account: Option<Account>) -> io::Result<Folder> {
        match self.folder(within) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        if let Some(parent) = within.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.make_as(parent, PASSABLE, account)?;
        }
        let (around, name) = self.around(within)?;
        match rustix::fs::mkdirat(&*around.0, name, mode) {
            // Made by somebody else just now, and theirs.
            Err(Errno::EXIST) => around.folder(Path::new(name)),
            made => {
                made?;
                let folder = around.folder(Path::new(name))?;
                own(&*folder.0, account)?;
                Ok(folder)
            }
        }
    }

    /// Lets other users through to what is below.
    pub fn let_through(&self) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&*self.0, PASSABLE)?)
    }

    /// Gives this folder to the account (`None` is who we are), unless it is somebody's already. Where nobody's folders are `marked`,
    /// by [`NOBODYS`], others are ours; elsewhere whatever belongs to who we are is nobody's yet. What is empty can be given anyhow.
    pub fn give(&self, account: Option<Account>, marked: bool) -> io::Result<()> {
        let data = rustix::fs::fstat(&*self.0)?;
        if data.st_uid != rustix::process::geteuid().as_raw() {
            return Ok(());
        }
        let is_marked = data.st_mode & 0o7777 == NOBODYS;
        if is_marked || !marked || self.is_empty()? {
            own(&*self.0, account)?;
        }
        // Last: should it not come to that, the mark says nothing of a folder that is another's.
        if is_marked {
            rustix::fs::fchmod(&*self.0, Mode::from_raw_mode(NOBODYS & 0o777))?;
        }
        Ok(())
    }

    fn is_empty(&self) -> io::Result<bool> {
        let mut entries = rustix::fs::Dir::read_from(&*self.0)?;
        Ok(!entries.any(|entry| entry.is_ok_and(|entry| !matches!(entry.file_name().to_bytes(), b"." | b".."))))
    }

    /// Where the account (`None` is who we are) can't look into this folder: whose it is, and its mode.
    pub fn is_closed_to(&self, account: Option<Account>) -> io::Result<Option<(u32, u32)>> {
        let data = rustix::fs::fstat(&*self.0)?;
        let ids = account.map_or_else(|| (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()), |it| (it.uid, it.gid));
        let bits = match ids {
            (0, _) => return Ok(None),
            (user, _) if user == data.st_uid => data.st_mode >> 6,
            (_, group) if group == data.st_gid => data.st_mode >> 3,
            _ => data.st_mode,
        };
        let open = bits & LOOK_INTO == LOOK_INTO;
        Ok((!open).then_some((data.st_uid, data.st_mode & 0o7777)))
    }

    /// Anything that is there, to be read: see what it is before reading it.
    pub fn read(&self, within: &Path) -> io::Result<File> {
        Ok(self.at(within, OFlags::RDONLY, Mode::empty())?.into())
    }

    /// A new file for `account`, where there is nothing of that name; to be read, and written at its end.
    pub fn create(&self, within: &Path, mode: u32, account: Option<Account>) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL;
        let file = self.at(within, flags, Mode::from_raw_mode(mode))?;
        own(&file, account)?;
        blocking(file)
    }

    /// As [`Folder::create`], in place of whatever bears that name and is no folder.
    pub fn replace(&self, within: &Path, mode: u32, account: Option<Account>) -> io::Result<File> {
        let (around, name) = self.around(within)?;
        match rustix::fs::unlinkat(&*around.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => around.create(Path::new(name), mode, account),
            Err(error) => Err(error.into()),
        }
    }

    /// A file that is appended to, made for `account` when it is missing.
    pub fn append(&self, within: &Path, mode: u32, account: Option<Account>) -> io::Result<File> {
        match self.create(within, mode, account) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made,
        }
        let file = self.at(within, OFlags::WRONLY | OFlags::APPEND, Mode::empty())?;
        let data = rustix::fs::fstat(&file)?;
        // A second name may stand in a folder that is nobody's to write to.
        if FileType::from_raw_mode(data.st_mode) != FileType::RegularFile || data.st_nlink != 1 {
            return Err(io::Error::other(format!("'{}' is no plain file with this one name", within.display())));
        }
        blocking(file)
    }

    /// A link to `target`, where there is nothing of that name.
    pub fn link(&self, target: &Path, within: &Path) -> io::Result<()> {
        let (around, name) = self.around(within)?;
        Ok(rustix::fs::symlinkat(target, &*around.0, name)?)
    }
}

/// Programs expect to wait for what they write.
fn blocking(file: OwnedFd) -> io::Result<File> {
    rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file.into())
}

/// Gives what was just made to the account that will use it.
fn own(made: impl AsFd, account: Option<Account>) -> io::Result<()> {
    account.map_or(Ok(()), |account| Ok(rustix::fs::fchown(made, Some(account.user()), Some(account.group()))?))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Read as _, Write as _},
        os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
        path::PathBuf,
    };

    use super::*;

    /// A sandbox, and a file outside with `precious` in it.
    fn place() -> (tempfile::TempDir, Folder, PathBuf, PathBuf) {
        let around = tempfile::tempdir().unwrap();
        let (sandbox, outside) = (around.path().join("sandbox"), around.path().join("outside"));
        fs::create_dir(&sandbox).unwrap();
        fs::create_dir(&outside).unwrap();
        let precious = outside.join("precious");
        fs::write(&precious, "precious").unwrap();
        let folder = Folder::open(&sandbox).unwrap();
        (around, folder, sandbox, precious)
    }

    fn kept(precious: &Path) {
        assert_eq!(fs::read_to_string(precious).unwrap(), "precious");
        let names: Vec<_> = fs::read_dir(precious.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["precious"]);
    }

    #[test]
    fn a_folder_that_is_nobodys_is_given_once_also_to_who_we_are() {
        let (_around, folder, sandbox, _) = place();
        let mode = |mode: u32| fs::set_permissions(&sandbox, fs::Permissions::from_mode(mode)).unwrap();
        let found = || {
            let data = fs::metadata(&sandbox).unwrap();
            (data.uid(), data.permissions().mode() & 0o7777)
        };
        let us = rustix::process::geteuid().as_raw();
        mode(NOBODYS);
        folder.give(None, true).unwrap();
        assert_eq!(found(), (us, 0o700), "ours now");
        fs::write(sandbox.join("ours"), "").unwrap();
        let other = Account { uid: 65_534, gid: 65_534 };
        for open in [0o700, 0o1777, 0o1770] {
            mode(open);
            folder.give(Some(other), true).unwrap();
            folder.give(None, true).unwrap();
            assert_eq!(found(), (us, open), "and nobody else's");
        }
        if us == 0 {
            mode(NOBODYS);
            folder.give(Some(other), true).unwrap();
            assert_eq!(found(), (other.uid, 0o700));
            // As Mesos' own agent leaves them.
            std::os::unix::fs::chown(&sandbox, Some(0), Some(0)).unwrap();
            mode(0o755);
            folder.give(Some(other), false).unwrap();
            assert_eq!(found(), (other.uid, 0o755));
        }
    }

    #[test]
    fn folders_and_files_are_made_where_there_is_nothing_in_the_way() {
        let (_around, folder, sandbox, _) = place();
        folder.make(Path::new("a/b/c"), None).unwrap();
        let mode = |path: &str| fs::metadata(sandbox.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("a/b"), mode("a/b/c")), (0o751, 0o750));
        folder.append(Path::new("a/log"), 0o644, None).unwrap().write_all(b"one").unwrap();
        folder.append(Path::new("a/log"), 0o644, None).unwrap().write_all(b"two").unwrap();
        let mut text = String::new();
        folder.read(Path::new("a/log")).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "onetwo");
        folder.replace(Path::new("a/log"), 0o644, None).unwrap().write_all(b"new").unwrap();
        assert_eq!(fs::read_to_string(sandbox.join("a/log")).unwrap(), "new");
        assert!(folder.replace(Path::new("a/b"), 0o644, None).is_err(), "a folder is nothing to replace");
    }

    #[test]
    fn no_link_is_followed_at_the_end_or_on_the_way() {
        let (_around, folder, sandbox, precious) = place();
        symlink(&precious, sandbox.join("file")).unwrap();
        symlink(precious.parent().unwrap(), sandbox.join("way")).unwrap();
        symlink("../outside", sandbox.join("back")).unwrap();
        for path in ["file", "way/precious", "back/precious"].map(Path::new) {
            assert!(folder.read(path).unwrap_err().to_string().contains("there is a link"), "{path:?}");
            assert!(folder.append(path, 0o644, None).is_err(), "{path:?}");
        }
        for path in ["way/new", "back/new", "../outside/new", "way"].map(Path::new) {
            assert!(folder.make(path, None).is_err(), "{path:?}");
        }
        for path in ["way/new", "back/new", "way/precious", "../outside/precious"].map(Path::new) {
            assert!(folder.replace(path, 0o644, None).is_err(), "{path:?}");
            assert!(folder.link(Path::new("/"), path).is_err(), "{path:?}");
        }
        folder.replace(Path::new("file"), 0o644, None).unwrap().write_all(b"own").unwrap();
        assert!(fs::symlink_metadata(sandbox.join("file")).unwrap().is_file(), "the link itself was replaced");
        kept(&precious);
    }

    #[test]
    fn a_second_name_and_a_pipe_are_not_written_to() {
        let (_around, folder, sandbox, precious) = place();
        fs::hard_link(&precious, sandbox.join("second")).unwrap();
        assert!(folder.append(Path::new("second"), 0o644, None).unwrap_err().to_string().contains("no plain file"));
        folder.replace(Path::new("second"), 0o644, None).unwrap().write_all(b"own").unwrap();
        let pipe = sandbox.join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(folder.append(Path::new("pipe"), 0o644, None).is_err());
        let _reader = folder.read(Path::new("pipe")).unwrap();
        assert!(folder.append(Path::new("pipe"), 0o644, None).unwrap_err().to_string().contains("no plain file"));
        kept(&precious);
    }
}
