//! Persistent volumes: folders outside of all sandboxes, which outlive the executors that use them.
//!
//! They lie where Mesos keeps them: in `volumes/roles/<role>/<persistence id>` of the agent's own folder or of the root of a disk of
//! the type PATH. One of the type MOUNT is a volume as a whole: its root, which is emptied when the volume is destroyed, and stays.
//! An executor finds those that are among its resources in its sandbox, under their `container_path`. Which there are the master
//! decides; the agent records it first, makes and removes folders then; when it starts, what is missing is made. Other users of the
//! machine see nothing in them: whom a volume is given to passes through the folders around it, and nobody else into it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
};

use podium_proto::mesos::v1::Resource;
use podium_proto::mesos::v1::resource::{DiskInfo, disk_info::source};
use podium_proto::wire::resources;

use super::{
    journal::Table,
    owner::{Effect, Owner},
    record::CheckpointRecord,
};
use crate::beneath::NOBODYS;
use crate::executor::inside;

/// Where the folders of destroyed volumes wait for their end.
const GONE: &str = "volumes/gone";
/// The same on a disk that is a volume as a whole.
const GONE_FROM_MOUNT: &str = ".podium-destroyed";
/// One folder a role, with its volumes in it.
const ROLES: &str = "volumes/roles";

/// Of the folders around volumes: who has a volume passes through, and nobody lists what there is.
const AROUND: u32 = 0o711;
/// Of a volume: its owner's, who may open it to others.
const OWN: u32 = 0o700;
/// Of a volume that an earlier podium made, and its owner left so.
const LEFT_OPEN: u32 = 0o755;
/// All others' rights.
const OTHERS: u32 = 0o007;

/// What volumes lie on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Disk {
    /// The agent's own.
    Own,
    /// A folder given to it, which several share.
    Path(PathBuf),
    /// One that is a volume as a whole.
    Mount(PathBuf),
}

impl Disk {
    /// None if this agent knows no such disk.
    fn of(disk: &DiskInfo) -> Option<Self> {
        let Some(source) = &disk.source else { return Some(Self::Own) };
        match source::Type::try_from(source.r#type).ok()? {
            source::Type::Path => Some(Self::Path(source.path.as_ref()?.root.as_ref()?.into())),
            source::Type::Mount => Some(Self::Mount(source.mount.as_ref()?.root.as_ref()?.into())),
            source::Type::Unknown | source::Type::Block | source::Type::Raw => None,
        }
    }

    /// Where what was destroyed waits for its end, on the same file system.
    fn gone(&self, agent: &Path) -> PathBuf {
        match self {
            Self::Own => agent.join(GONE),
            Self::Path(root) => root.join(GONE),
            Self::Mount(root) => root.join(GONE_FROM_MOUNT),
        }
    }

    /// Whether it is there; a folder given to the agent is made.
    fn check(&self) -> io::Result<()> {
        match self {
            Self::Path(root) => fs::DirBuilder::new()
                .recursive(true)
                .mode(AROUND)
                .create(root)
                .map_err(|error| io::Error::other(format!("the disk {}: {error}", root.display()))),
            Self::Mount(root) if !root.is_dir() => {
                Err(io::Error::other(format!("the disk {} is no folder: nothing is mounted there", root.display())))
            }
            Self::Own | Self::Mount(_) => Ok(()),
        }
    }

    /// The folders of volumes are below; none of a disk that is one itself.
    fn roles(&self, agent: &Path) -> Option<PathBuf> {
        match self {
            Self::Own => Some(agent.join(ROLES)),
            Self::Path(root) => Some(root.join(ROLES)),
            Self::Mount(_) => None,
        }
    }
}

/// What becomes of a volume's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// It is new.
    Make(Folder),
    /// It was destroyed, with all that is in it.
    Remove(Folder),
}

/// A volume, by role and persistence id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Folder {
    role: String,
    id: String,
    disk: Disk,
}

impl Folder {
    /// That of a resource; none if it is no volume.
    fn of(resource: &Resource) -> Option<Self> {
        let disk = resource.disk.as_ref()?;
        let id = disk.persistence.as_ref()?.id.clone();
        Some(Self { role: resources::role(resource).to_owned(), id, disk: Disk::of(disk)? })
    }

    /// Whether it is the root of a MOUNT that nobody owns yet and in which there is nothing to be seen.
    fn is_unused_mount(&self) -> io::Result<bool> {
        let Disk::Mount(root) = &self.disk else { return Ok(false) };
        if fs::metadata(root)?.uid() != rustix::process::geteuid().as_raw() {
            return Ok(false);
        }
        let of_nobody = ["lost+found", GONE_FROM_MOUNT];
        for entry in fs::read_dir(root)? {
            if !of_nobody.iter().any(|name| entry.as_ref().is_ok_and(|entry| entry.file_name() == *name)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// As Mesos does: a role's `/` becomes a space, which no role has.
    fn path(&self, agent: &Path) -> Option<PathBuf> {
        if let Disk::Mount(root) = &self.disk {
            return Some(root.clone());
        }
        let one = |name: &str| inside(name).filter(|name| name.components().count() == 1);
        Some(self.disk.roles(agent)?.join(one(&self.role.replace('/', " "))?).join(one(&self.id)?))
    }
}

fn folders(resources: &[Resource]) -> BTreeSet<Folder> {
    resources.iter().filter_map(Folder::of).collect()
}

impl Owner {
    /// From now on this is reserved here.
    pub fn checkpoint(&mut self, resources: Vec<Resource>) {
        let (before, after) = (folders(&self.checkpointed), folders(&resources));
        let made = after.difference(&before).cloned().map(Change::Make);
        let changes = made.chain(before.difference(&after).cloned().map(Change::Remove)).collect();
        self.checkpointed.clone_from(&resources);
        self.batch.put(Table::Checkpoint, Vec::new(), &CheckpointRecord { resources });
        self.batch.then.push(Effect::Volumes(changes));
    }
}

/// Makes and removes folders. What fails is said; a launch that needs the folder fails by itself then.
pub(super) fn carry_out(agent: &Path, changes: &[Change]) {
    for change in changes {
        let (folder, done) = match change {
            Change::Make(folder) => (folder, folder.path(agent).map(|path| make(folder, &path).and_then(|()| take_mount(folder)))),
            Change::Remove(folder) => (folder, folder.path(agent).map(|path| remove(folder, agent, &path))),
        };
        if let Some(Err(error)) = done {
            tracing::error!(role = folder.role, volume = folder.id, %error, "a persistent volume's folder can't be made or removed");
        }
    }
}

/// At a start: makes what is missing, and removes what was destroyed and no more: records that were lost must not take the data along.
/// What can't be made is told of; a launch that needs it fails by itself.
///
/// # Errors
/// Among what the agent `has` is a disk that is not there.
pub(super) fn restore(agent: &Path, has: &[Resource], checkpointed: &[Resource]) -> io::Result<()> {
    let disks: BTreeSet<Disk> = has.iter().filter_map(|resource| Disk::of(resource.disk.as_ref()?)).chain([Disk::Own]).collect();
    for disk in &disks {
        disk.check()?;
        empty(&disk.gone(agent));
    }
    let wanted: BTreeMap<PathBuf, Folder> =
        folders(checkpointed).into_iter().filter_map(|folder| Some((folder.path(agent)?, folder))).collect();
    for (path, folder) in &wanted {
        // A crash may have come between the record of a volume and its folder.
        let take = || if folder.is_unused_mount()? { take_mount(folder) } else { Ok(()) };
        if let Err(error) = make(folder, path).and_then(|()| take()) {
            tracing::error!(path = %path.display(), %error, "a persistent volume's folder can't be made");
        }
    }
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    let all_roles: Vec<PathBuf> = disks.iter().filter_map(|disk| disk.roles(agent)).collect();
    let roles: Vec<PathBuf> = all_roles.iter().flat_map(|roles| entries(roles)).collect();
    let present: Vec<PathBuf> = roles.iter().flat_map(|role| entries(role)).collect();
    for path in present.iter().filter(|path| !wanted.contains_key(*path)) {
        tracing::warn!(path = %path.display(), "this folder belongs to no persistent volume: it is left alone, remove it if nobody needs it");
    }
    for roles in &all_roles {
        if let Err(error) = close(roles) {
            tracing::error!(path = %roles.display(), %error, "the volumes in this folder can't be closed to other users of the machine");
        }
    }
    Ok(())
}

fn make(folder: &Folder, path: &Path) -> io::Result<()> {
    if let Disk::Mount(_) = folder.disk {
        return folder.disk.check();
    }
    if let Some(role) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(AROUND).create(role)?;
    }
    match fs::DirBuilder::new().mode(NOBODYS).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }
}

/// A MOUNT that becomes a volume is closed to others, and nobody's yet, whosever the last volume on it was.
fn take_mount(folder: &Folder) -> io::Result<()> {
    let Disk::Mount(root) = &folder.disk else { return Ok(()) };
    if rustix::process::geteuid().is_root() {
        chown(root, Some(0), Some(0))?;
    }
    fs::set_permissions(root, Permissions::from_mode(NOBODYS))
}

/// Closes what an earlier podium made: folders, and volumes in them, that are open to everybody. That is so once, and as long as the
/// folder of all roles is open, which is closed last: what its owner opens later is open to whom they want.
fn close(roles: &Path) -> io::Result<()> {
    let mode = |path: &Path| Ok::<u32, io::Error>(fs::symlink_metadata(path)?.permissions().mode());
    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    match mode(roles) {
        Ok(found) if found & OTHERS & !AROUND != 0 => {}
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => return Ok(()),
    }
    for role in fs::read_dir(roles)? {
        let role = role?.path();
        if !role.is_dir() {
            continue;
        }
        for volume in fs::read_dir(&role)? {
            let volume = volume?.path();
            match mode(&volume)? & 0o7777 {
                LEFT_OPEN => set(&volume, OWN)?,
                found => set(&volume, found & !OTHERS)?,
            }
        }
        set(&role, AROUND)?;
    }
    if let Some(volumes) = roles.parent() {
        set(volumes, AROUND)?;
    }
    set(roles, AROUND)
}

/// Puts a folder out of the way at once, or all that is in the root of a MOUNT, and lets it be removed beside other work.
fn remove(folder: &Folder, agent: &Path, path: &Path) -> io::Result<()> {
    let waiting = folder.disk.gone(agent);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&waiting)?;
    let gone = waiting.join(uuid::Uuid::new_v4().to_string());
    if let Disk::Mount(root) = &folder.disk {
        fs::create_dir(&gone)?;
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            if entry.path() != waiting {
                fs::rename(entry.path(), gone.join(entry.file_name()))?;
            }
        }
        tokio::task::spawn_blocking(move || {
            empty(&gone);
            // Unless more waits there.
            let _ = fs::remove_dir(waiting);
        });
        return Ok(());
    }
    match fs::rename(path, &gone) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed?,
    }
    if let Some(role) = path.parent() {
        // Of a role without volumes nothing remains; others keep theirs.
        let _ = fs::remove_dir(role);
    }
    tokio::task::spawn_blocking(move || empty(&gone));
    Ok(())
}

/// Removes what was destroyed.
fn empty(gone: &Path) {
    let removed = fs::remove_dir_all(gone).or_else(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => super::gc::unlock(gone).and_then(|()| fs::remove_dir_all(gone)),
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    });
    if let Err(error) = removed {
        tracing::error!(path = %gone.display(), %error, "what is left of a destroyed persistent volume can't be removed; it is tried again at the next start");
    }
}

/// The volumes among an executor's resources: the name in its sandbox, and the folder. One that is not there is a reason not to
/// start the executor: what it writes would be lost.
pub(super) fn of(agent: &Path, checkpointed: &[Resource], used: &[Resource]) -> Result<Vec<(PathBuf, PathBuf)>, String> {
    let known = folders(checkpointed);
    let volumes = used.iter().filter_map(|resource| Some((resource.disk.as_ref()?, Folder::of(resource)?)));
    volumes
        .map(|(disk, folder)| {
            let path = folder.path(agent).filter(|_| known.contains(&folder));
            let path = path.ok_or_else(|| format!("this agent has no persistent volume '{}' of role '{}'", folder.id, folder.role))?;
            let at = disk.volume.as_ref().map_or("", |volume| volume.container_path.as_str());
            let name = inside(at).ok_or_else(|| format!("the persistent volume's path '{at}' leads out of the sandbox"))?;
            Ok((name, path))
        })
        .collect()
}

/// Makes a volume appear in a sandbox, for whoever owns that.
pub(super) fn link(sandbox: &Path, name: &Path, volume: &Path) -> io::Result<()> {
    if !volume.is_dir() {
        return Err(io::Error::other(format!("the folder {} of a persistent volume is missing", volume.display())));
    }
    let at = sandbox.join(name);
    if let Some(around) = at.parent() {
        fs::DirBuilder::new().recursive(true).mode(AROUND).create(around)?;
    }
    match symlink(volume, &at) {
        // Ordered once before, by an agent that crashed.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && fs::read_link(&at).is_ok_and(|found| found == volume) => Ok(()),
        linked => linked,
    }
}

#[cfg(test)]
mod tests {
    use podium_proto::mesos::v1::resource::{DiskInfo, ReservationInfo, disk_info::Persistence, disk_info::Source};
    use podium_proto::mesos::v1::{Volume, volume};
    use podium_proto::wire::resources::scalar_entry;

    use super::*;

    fn volume(role: &str, id: &str, at: &str) -> Resource {
        let volume = Volume { container_path: at.to_owned(), mode: volume::Mode::Rw.into(), ..Volume::default() };
        let persistence = Persistence { id: id.to_owned(), principal: None };
        Resource {
            disk: Some(DiskInfo { persistence: Some(persistence), volume: Some(volume), source: None }),
            reservations: vec![ReservationInfo { role: Some(role.to_owned()), r#type: Some(2), ..ReservationInfo::default() }],
            ..scalar_entry("disk", 1_000)
        }
    }

    #[tokio::test]
    async fn folders_follow_the_volumes_and_a_start_removes_only_what_was_destroyed() {
        let agent = tempfile::tempdir().unwrap();
        let (one, other) = (volume("db/main", "a#v#1", "v"), volume("web", "b", "w"));
        restore(agent.path(), &[], &[one.clone(), other.clone()]).unwrap();
        let path = agent.path().join("volumes/roles/db main/a#v#1");
        fs::write(path.join("data"), "kept").unwrap();
        restore(agent.path(), &[], &[]).unwrap();
        assert!(path.join("data").is_file(), "what no record tells of any more is left alone");
        fs::remove_dir(agent.path().join("volumes/roles/web/b")).unwrap();
        carry_out(agent.path(), &[Change::Remove(Folder::of(&one).unwrap()), Change::Make(Folder::of(&other).unwrap())]);
        assert!(!path.exists() && agent.path().join("volumes/roles/web/b").is_dir());
        fs::create_dir_all(agent.path().join(GONE).join("half/removed")).unwrap();
        restore(agent.path(), &[], &[]).unwrap();
        assert!(!agent.path().join(GONE).exists());
    }

    #[test]
    fn only_its_owner_sees_a_volume_also_one_that_was_open_to_everybody() {
        let agent = tempfile::tempdir().unwrap();
        let folders = ["volumes", "volumes/roles", "volumes/roles/web", "volumes/roles/web/a", "volumes/roles/web/forgotten"];
        let modes = || folders.map(|name| fs::metadata(agent.path().join(name)).unwrap().permissions().mode() & 0o777);
        for name in folders {
            fs::create_dir(agent.path().join(name)).unwrap();
            fs::set_permissions(agent.path().join(name), Permissions::from_mode(0o755)).unwrap();
        }
        restore(agent.path(), &[], &[volume("web", "a", "data"), volume("new", "b", "data")]).unwrap();
        assert_eq!(modes(), [0o711, 0o711, 0o711, 0o700, 0o700]);
        let fresh = |name| fs::metadata(agent.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((fresh("volumes/roles/new"), fresh("volumes/roles/new/b")), (0o711, 0o700));
        // What its owner has opened, to a group or to everybody, stays so.
        for open in [0o2770, 0o2775, 0o755] {
            fs::set_permissions(agent.path().join("volumes/roles/web/a"), Permissions::from_mode(open)).unwrap();
            restore(agent.path(), &[], &[volume("web", "a", "data")]).unwrap();
            assert_eq!(fs::metadata(agent.path().join("volumes/roles/web/a")).unwrap().permissions().mode() & 0o7777, open);
            assert_eq!(modes(), [0o711, 0o711, 0o711, open & 0o777, 0o700]);
        }
        // Where an earlier podium left off, a group keeps what it has.
        fs::set_permissions(agent.path().join("volumes/roles"), Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(agent.path().join("volumes/roles/web/a"), Permissions::from_mode(0o2775)).unwrap();
        restore(agent.path(), &[], &[volume("web", "a", "data")]).unwrap();
        assert_eq!(modes(), [0o711, 0o711, 0o711, 0o770, 0o700]);
    }

    #[test]
    fn an_executor_gets_its_own_volumes_and_no_way_out_of_its_sandbox() {
        let agent = tempfile::tempdir().unwrap();
        let known = [volume("web", "a", "data")];
        restore(agent.path(), &[], &known).unwrap();
        let found = of(agent.path(), &known, &known).unwrap();
        let sandbox = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            link(sandbox.path(), &found[0].0, &found[0].1).unwrap();
        }
        fs::write(sandbox.path().join("data/file"), "x").unwrap();
        assert!(agent.path().join("volumes/roles/web/a/file").is_file());
        assert!(of(agent.path(), &known, &[volume("web", "b", "data")]).unwrap_err().contains("no persistent volume 'b'"));
        for bad in ["../up", "/etc", ""] {
            let bad = [volume("web", "a", bad)];
            assert!(of(agent.path(), &known, &bad).unwrap_err().contains("leads out"), "{bad:?}");
        }
        for (role, id) in [("web", ".."), ("web", "a/b"), ("..", "a")] {
            let folder = Folder { role: role.to_owned(), id: id.to_owned(), disk: Disk::Own };
            assert_eq!(folder.path(agent.path()), None, "{role} {id}");
        }
    }

    #[tokio::test]
    async fn a_path_is_shared_and_a_mount_is_a_volume_that_is_emptied_and_stays() {
        let (agent, disks) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (path, mount) = (disks.path().join("path"), disks.path().join("mount"));
        let on = |kind: source::Type, root: &Path, id: &str| {
            let root = Some(root.to_str().unwrap().to_owned());
            let mut source = Source { r#type: kind.into(), ..Source::default() };
            if kind == source::Type::Path {
                source.path = Some(source::Path { root });
            } else {
                source.mount = Some(source::Mount { root });
            }
            let mut volume = volume("db", id, "v");
            volume.disk.as_mut().unwrap().source = Some(source);
            volume
        };
        let (part, whole) = (on(source::Type::Path, &path, "p"), on(source::Type::Mount, &mount, "m"));
        let known = [part.clone(), whole.clone()];
        assert!(restore(agent.path(), &known, &known).unwrap_err().to_string().contains("nothing is mounted there"));
        fs::create_dir(&mount).unwrap();
        restore(agent.path(), &known, &known).unwrap();
        let found = of(agent.path(), &known, &known).unwrap();
        assert_eq!([&found[0].1, &found[1].1], [&path.join("volumes/roles/db/p"), &mount]);
        assert!(of(agent.path(), &[volume("db", "m", "v")], &known[1..]).is_err(), "that of another disk");
        for (_, folder) in &found {
            fs::create_dir(folder.join("more")).unwrap();
            fs::write(folder.join("more/data"), "x").unwrap();
        }
        let mode = || fs::metadata(&mount).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), OWN, "closed at first");
        fs::set_permissions(&mount, Permissions::from_mode(0o755)).unwrap();
        restore(agent.path(), &known, &known).unwrap();
        assert_eq!(mode(), 0o755, "and open as its owner wants");
        carry_out(agent.path(), &[&part, &whole].map(|volume| Change::Remove(Folder::of(volume).unwrap())));
        assert!(!path.join("volumes/roles/db").exists() && !mount.join("more").exists() && mount.is_dir());
        // What a crash has left there of a removal.
        for left in [path.join(GONE), mount.join(GONE_FROM_MOUNT)] {
            fs::create_dir_all(left.join("half/removed")).unwrap();
        }
        restore(agent.path(), &known, &[]).unwrap();
        assert!(!path.join(GONE).exists() && fs::read_dir(&mount).unwrap().next().is_none());
        if rustix::process::geteuid().is_root() {
            chown(&mount, Some(65_534), None).unwrap();
        }
        carry_out(agent.path(), &[Change::Make(Folder::of(&whole).unwrap())]);
        assert_eq!((mode(), fs::metadata(&mount).unwrap().uid()), (OWN, rustix::process::geteuid().as_raw()), "the next one's alone");
    }
}
