//! Starts a process in its own session, bound to this executor's life, and with nothing of what our own starter may
//! have left us: descriptors, ignored or blocked signals. The one file of the engine with `unsafe` in it: the standard
//! library has no safe way to run code between fork and exec, and session, death signal and signals' dispositions can
//! only be set there.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal};

use super::users::Account;
use crate::beneath::Folder;

/// All that a container's process needs.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// The executable and its argv, argv[0] included.
    pub executable: OsString,
    pub argv: Vec<OsString>,
    /// Complete: nothing is inherited.
    pub environment: BTreeMap<String, String>,
    /// Working directory.
    pub directory: PathBuf,
    /// Where its output goes.
    pub logs: Logs,
    /// Whom to become.
    pub account: Option<Account>,
}

/// The files `stdout` and `stderr` of one directory.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    pub folder: Folder,
    /// Else what an earlier program wrote is lost.
    pub append: bool,
}

impl Logs {
    /// The folder is its containers': what bears the name may be anything.
    fn open(&self, name: &str, account: Option<Account>) -> io::Result<File> {
        let name = Path::new(name);
        if self.append { self.folder.append(name, 0o644, account) } else { self.folder.replace(name, 0o644, account) }
    }
}

/// Starts it; the caller reaps.
pub(crate) fn spawn(program: &Program) -> io::Result<Pid> {
    let mut command = Command::new(&program.executable);
    if let Some((name, arguments)) = program.argv.split_first() {
        command.arg0(name).args(arguments);
    }
    command.env_clear().envs(&program.environment).current_dir(&program.directory);
    command.stdin(Stdio::null());
    command.stdout(program.logs.open("stdout", program.account)?).stderr(program.logs.open("stderr", program.account)?);
    if let Some(account) = &program.account {
        command.uid(account.uid).gid(account.gid);
    }
    bind(&mut command);
    let child = command.spawn()?;
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("the kernel gave an impossible process id"))
}

#[allow(unsafe_code)]
fn bind(command: &mut Command) {
    // SAFETY: the closure runs in the child between fork and exec. It makes system calls only, which neither allocate
    // nor lock; nothing of the parent's memory is changed.
    unsafe {
        command.pre_exec(|| {
            default_signals();
            rustix::process::setsid()?;
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(())
        });
    }
}

/// Signals that a shell or `nohup` had us ignore, a container could not even trap; blocked ones would never reach it.
#[allow(unsafe_code)]
fn default_signals() {
    for signal in 1..=SIGNALS {
        // SAFETY: no handler is installed, one may be taken away. Those that are not ours to change are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    unblock_signals();
}

/// Makes a child of this process, with all that it has just now: its id, or nothing in the child. Nothing may run here beside the
/// caller: another thread's locks would be held in the child for ever.
#[allow(unsafe_code)]
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("a process with several threads can't be split"));
    }
    // SAFETY: this is the only thread, so that the child has all of it: memory, and no lock that is held.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        child => Ok(Pid::from_raw(child)),
    }
}

/// Linux' highest signal.
const SIGNALS: i32 = 64;

/// Lets every signal through to the calling thread.
#[allow(unsafe_code)]
pub(crate) fn unblock_signals() {
    // SAFETY: a zeroed set is a valid one, and both calls are given pointers that live long enough.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// What this process was started with, or has opened without care, no process that it starts shall have: it would hold
/// locks and pipes for days. Kernels before 5.11 can't do this, and go on without.
#[allow(unsafe_code)]
pub(crate) fn share_no_descriptors() {
    // SAFETY: the call takes numbers only, closes nothing here, and changes what becomes of descriptors at exec.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}
