//! Who a container runs as.

use std::fs;

use podium_proto::mesos::v1::TaskInfo;

/// A line of the machine's account list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    pub uid: u32,
    pub gid: u32,
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
