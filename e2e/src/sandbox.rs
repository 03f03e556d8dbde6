//! Sandboxes on disk, as the agents of either engine lay them out.

use std::fs;
use std::path::{Path, PathBuf};

/// The sandbox of a task: what `tasks/<task id>` of its executor's sandbox, somewhere below `folder`, links to.
pub fn of_task(folder: &Path, task: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        // Agents keep records in folders of that name; the way to the sandbox is a link.
        if entry.file_name() == task && path.is_symlink() && path.parent()?.file_name()? == "tasks" {
            return fs::canonicalize(path).ok();
        }
        let found = entry.file_type().is_ok_and(|kind| kind.is_dir()).then(|| of_task(&path, task)).flatten();
        if found.is_some() {
            return found;
        }
    }
    None
}
