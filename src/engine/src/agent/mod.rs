//! The embedded agent: starts one executor process for each task group, keeps the status updates until the
//! framework has acknowledged them, and shows the sandboxes' files.
//!
//! It promises
//! - nothing launched twice, nothing lost: an executor is on disk before its process starts, the process
//!   before it is given its group, an update before anyone hears of it;
//! - its end, however sudden, does not touch what runs: executors have sessions of their own, read the file
//!   [`ADDRESS`] to find the next agent of the same folder, and bring it what it has missed;
//! - [`Agent::shutdown`] leaves nothing behind, and the next start tells which tasks it has ended.
//!
//! ```text
//!   master --link--> owner --journal--> disk --(durable)--> owner --> launcher thread: fork and exec
//!                      ^                                      |---> executors' event streams
//!      http listener --+                                      '---> master: the head of each update stream
//! ```
//! One task, the owner, owns all state; the master of the same process starts it and takes its words.

mod executor_api;
mod files;
mod gc;
mod http;
mod journal;
mod launcher;
mod life;
mod operator;
mod owner;
mod record;
mod recovery;
mod resources;
mod stopping;
mod streams;
mod survivors;
mod updates;
mod volumes;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    ffi::OsString,
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use podium_proto::mesos::v1::{AgentId, AgentInfo, Attribute, Resource};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::link::{FromAgent, LINK_CAPACITY};
pub use gc::Retention;
pub use journal::JournalError;
pub use resources::{DEFAULT_RESOURCES, ParseError, parse_attributes, parse_resources};

/// The file in the agent's folder that holds its `ip:port`; executors look there when they have lost it.
pub const ADDRESS: &str = "address";

/// What an agent is made of.
#[derive(Debug)]
pub struct AgentConfig {
    /// The agent's own folder: made when missing, and held by no other agent (the caller locks it).
    pub data_dir: PathBuf,
    /// Bound already; its address is what executors connect to.
    pub listener: TcpListener,
    /// Its total, unreserved; see [`parse_resources`] and [`DEFAULT_RESOURCES`].
    pub resources: Vec<Resource>,
    /// See [`parse_attributes`].
    pub attributes: Vec<Attribute>,
    /// As frameworks see it.
    pub hostname: String,
    /// Program and arguments of the executor: `[<this program>, "executor"]`.
    pub executor_command: Vec<OsString>,
    /// Which sandboxes of ended executors are kept.
    pub retention: Retention,
    /// The master's end of the link.
    pub to_master: mpsc::Sender<FromAgent>,
}

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its folder can't be used.
    #[error("the agent's folder {path}: {source}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its records can't be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The listener has no address, or no thread can be started.
    #[error("starting the agent: {0}")]
    System(#[from] io::Error),
}

/// A running agent. Dropping it is a crash: what runs goes on, and the next start finds it.
#[derive(Debug)]
pub struct Agent {
    id: AgentId,
    address: SocketAddr,
    messages: mpsc::Sender<owner::Message>,
    owner: JoinHandle<()>,
    server: JoinHandle<()>,
    /// What still holds the folder when the owner has gone.
    threads: [journal::Closed; 2],
}

impl Agent {
    /// Starts the agent of a folder; the master hears `Recovering` and, when all that ran before is accounted
    /// for, `Register`.
    ///
    /// # Errors
    /// When the folder, its records or the listener can't be used.
    pub async fn start(config: AgentConfig) -> Result<Agent, AgentError> {
        let address = config.listener.local_addr()?;
        let data_dir = prepare(&config.data_dir).map_err(|source| AgentError::Folder { path: config.data_dir.clone(), source })?;
        let open_files = raise_open_files();
        crate::executor::share_no_descriptors();
        let new_id = uuid::Uuid::new_v4().to_string();
        let path = data_dir.join("agent.redb");
        let (done, durable) = mpsc::unbounded_channel();
        let opened = {
            let (path, new_id) = (path.clone(), new_id.clone());
            tokio::task::spawn_blocking(move || journal::Journal::open(&path, &new_id, done)).await.map_err(io::Error::other)?
        };
        let (journal, stored) = opened?;
        let restarted = stored.agent_id.is_some();
        let id = AgentId { value: stored.agent_id.clone().unwrap_or(new_id) };
        let memory = recovery::read(&path, stored)?;
        if restarted {
            // A master that is gone already will not miss it.
            let _ = config.to_master.send(FromAgent::Recovering { agent_id: id.clone() }).await;
        }
        let path = data_dir.clone();
        let folder_error = |source| AgentError::Folder { path: path.clone(), source };
        write_address(&data_dir, address).map_err(folder_error)?;

        let (messages, inbox) = mpsc::channel(LINK_CAPACITY);
        let (link, from_master) = mpsc::channel(LINK_CAPACITY);
        let info = AgentInfo {
            hostname: config.hostname.clone(),
            resources: config.resources,
            attributes: config.attributes,
            id: Some(id.clone()),
            port: Some(i32::from(address.port())),
            ..AgentInfo::default()
        };
        let (launcher, launcher_closed) = launcher::start(config.executor_command, messages.clone())?;
        let threads = [journal.closed(), launcher_closed];
        let files = files::Files::new(&data_dir, &id.value);
        let living = memory.living_sandboxes(&data_dir, &id);
        let frameworks = life::frameworks_folder(&data_dir, &id);
        let ended = tokio::task::spawn_blocking(move || gc::scan(&frameworks, &living)).await.map_err(io::Error::other)?;
        let (folder, has, checkpointed) = (data_dir.clone(), info.resources.clone(), memory.checkpointed.clone());
        tokio::task::spawn_blocking(move || volumes::restore(&folder, &has, &checkpointed)).await.map_err(io::Error::other)??;
        let owner = owner::Owner {
            agent_id: id.clone(),
            info,
            address,
            folder: data_dir,
            journal,
            durable,
            launcher,
            survivors: survivors::Survivors::start(),
            sandboxes: gc::Collector::start(config.retention, ended),
            messages: inbox,
            own: messages.clone(),
            to_master: config.to_master,
            from_master,
            link,
            outbox: VecDeque::new(),
            checkpointed: memory.checkpointed.clone(),
            frameworks: memory.frameworks(),
            executors: memory.executors.into_iter().collect::<HashMap<_, _>>(),
            tasks: memory.tasks.into_iter().collect::<HashMap<_, _>>(),
            timers: BTreeSet::new(),
            awaited: BTreeSet::new(),
            registered: false,
            stopping: None,
            batch: journal::Batch::default(),
            open_files,
        };
        let context = Arc::new(http::Context { owner: messages.clone(), files, hostname: config.hostname });
        let owner = tokio::spawn(owner.run());
        let server = tokio::spawn(http::serve(config.listener, context));
        Ok(Agent { id, address, messages, owner, server, threads })
    }

    /// Its id, the same for the life of its folder.
    #[must_use]
    pub fn id(&self) -> &AgentId {
        &self.id
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every instance, by force where asking does not help, and returns when no process of any is left and
    /// this is on disk: the next start reports those tasks as killed.
    pub async fn shutdown(self) {
        let (reply, stopped) = oneshot::channel();
        if self.messages.send(owner::Message::Stop { reply }).await.is_ok() {
            let _ = stopped.await;
        }
    }

    /// Stops as a crash would: nothing is said to anyone, and what runs goes on. Returns when the folder can be
    /// opened again.
    pub async fn abandon(mut self) {
        self.owner.abort();
        self.server.abort();
        let _ = (&mut self.owner).await;
        let _ = (&mut self.server).await;
        for thread in self.threads.clone() {
            journal::ended(thread).await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.owner.abort();
        self.server.abort();
    }
}

/// Makes the folder; sandboxes hold what their owners wrote, so others may pass through and no more.
fn prepare(data_dir: &Path) -> io::Result<PathBuf> {
    fs::DirBuilder::new().recursive(true).mode(0o711).create(data_dir)?;
    let data_dir = fs::canonicalize(data_dir)?;
    fs::DirBuilder::new().recursive(true).mode(0o711).create(data_dir.join("slaves"))?;
    Ok(data_dir)
}

/// Replaced as a whole, so that nobody reads half an address.
fn write_address(data_dir: &Path, address: SocketAddr) -> io::Result<()> {
    let fresh = data_dir.join(format!(".{ADDRESS}"));
    let mut file = fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
    file.write_all(address.to_string().as_bytes())?;
    fs::rename(fresh, data_dir.join(ADDRESS))
}

/// A thousand executors need more descriptors than a shell allows; answers what was allowed before, for those
/// who are not to have more.
fn raise_open_files() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum });
    before.current
}
