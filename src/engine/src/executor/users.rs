//! Who a container runs as.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use podium_proto::mesos::v1::TaskInfo;
use rustix::{
    fs::{Gid, Uid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

/// A line of the machine's account list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    pub uid: u32,
    pub gid: u32,
}

impl Account {
    pub fn user(self) -> Uid {
        Uid::from_raw(self.uid)
    }

    pub fn group(self) -> Gid {
        Gid::from_raw(self.gid)
    }

    /// Gives up the rights of the calling thread for this account's. Who it really is stays, so that the account can
    /// neither signal nor trace it.
    fn borrow(self) -> io::Result<()> {
        set_thread_groups(&[])?;
        set_thread_res_gid(None, self.group(), None)?;
        Ok(set_thread_res_uid(None, self.user(), None)?)
    }
}

/// Opens a file of the machine, to be read, if the account may read it; `None` is who we are. Waits for nobody on the
/// other side of a pipe.
pub(crate) fn open(path: &Path, account: Option<Account>) -> io::Result<File> {
    let path = path.to_owned();
    let open = move |path: PathBuf| File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let Some(account) = account else { return open(path) };
    // Rights are a thread's: this one ends with what it has given up.
    let thread = std::thread::Builder::new().name("borrowed-rights".to_owned()).spawn(move || {
        account.borrow()?;
        open(path)
    })?;
    thread.join().map_err(|_| io::Error::other("the thread that was to open it has failed"))?
}

/// Whom to become for `task`: `None` stays who we are. Only root can become someone else: for others the
/// framework's user is a wish, but a user that the task itself names must be the one that we are.
pub(crate) fn account(task: &TaskInfo, framework_user: &str) -> Result<Option<Account>, String> {
    let own = task.command.as_ref().and_then(|command| command.user.as_deref()).filter(|user| !user.is_empty());
    let root = rustix::process::geteuid().is_root();
    let name = match own {
        Some(name) => name,
        None if !root || framework_user.is_empty() => return Ok(None),
        None => framework_user,
    };
    let accounts = fs::read_to_string("/etc/passwd").map_err(|error| format!("cannot read this machine's accounts: {error}"))?;
    let found = find(&accounts, name).ok_or_else(|| format!("there is no user '{name}' on this machine"))?;
    if found.uid == rustix::process::geteuid().as_raw() {
        return Ok(None);
    }
    if !root {
        return Err(format!("cannot run as user '{name}': the agent does not run as root, and only root can switch users"));
    }
    Ok(Some(found))
}

fn find(accounts: &str, name: &str) -> Option<Account> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        found.then_some(Account { uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name_only() {
        let list = "root:x:0:0:root:/root:/bin/sh\nbroken\nnobody:x:65534:65533:nobody:/:/usr/sbin/nologin\n";
        assert_eq!(find(list, "nobody"), Some(Account { uid: 65534, gid: 65533 }));
        assert_eq!(find(list, "nobod"), None);
        assert_eq!(find(list, "broken"), None);
    }
}
