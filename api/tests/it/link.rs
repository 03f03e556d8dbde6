//! A way to the store that a test can hold up, close and cut.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the link does with what comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Mode {
    /// It goes on.
    #[default]
    Open,
    /// Nothing can be connected to.
    Closed,
    /// The store gets what it is sent; its answers wait.
    Held,
    /// What is sent to the store is lost.
    Swallowing,
}

#[derive(Debug, Clone, Default)]
struct State {
    mode: Mode,
    /// Connections of an earlier age are cut.
    age: u64,
}

/// A proxy before the store.
pub struct Link {
    address: SocketAddr,
    state: watch::Sender<State>,
    swallowed: watch::Sender<Vec<u8>>,
}

impl Link {
    /// An open link.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = Self { address: listener.local_addr().unwrap(), state: watch::Sender::default(), swallowed: watch::Sender::default() };
        let (state, swallowed) = (link.state.subscribe(), link.swallowed.clone());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if state.borrow().mode != Mode::Closed
                    && let Ok(far) = TcpStream::connect(target).await
                {
                    tokio::spawn(pass(near, far, state.clone(), swallowed.clone()));
                }
            }
        });
        link
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What the store answers waits from now on.
    pub fn hold(&self) {
        self.state.send_modify(|state| state.mode = Mode::Held);
    }

    /// All connections break, and new ones are as good as ever.
    pub fn mend(&self) {
        self.state.send_modify(|state| *state = State { mode: Mode::Open, age: state.age + 1 });
    }

    /// All connections break, and there are no new ones.
    pub fn close(&self) {
        self.state.send_modify(|state| *state = State { mode: Mode::Closed, age: state.age + 1 });
    }

    /// What is sent is lost from now on.
    pub fn swallow(&self) {
        self.state.send_modify(|state| state.mode = Mode::Swallowing);
    }

    /// Returns when something that was lost held this text.
    pub async fn swallowed(&self, text: &str) {
        let holds = |lost: &Vec<u8>| lost.windows(text.len()).any(|part| part == text.as_bytes());
        self.swallowed.subscribe().wait_for(holds).await.unwrap();
    }
}

async fn pass(near: TcpStream, far: TcpStream, mut state: watch::Receiver<State>, swallowed: watch::Sender<Vec<u8>>) {
    let age = state.borrow().age;
    let (mut from_near, mut to_near) = near.into_split();
    let (mut from_far, mut to_far) = far.into_split();
    let asks = state.clone();
    let up = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_near.read(&mut buffer).await {
            let mode = asks.borrow().mode;
            if mode == Mode::Swallowing {
                swallowed.send_modify(|lost| lost.extend_from_slice(&buffer[..read]));
            } else if to_far.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    let mut answers = state.clone();
    let down = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_far.read(&mut buffer).await {
            let Ok(now) = answers.wait_for(|state| state.mode != Mode::Held).await.map(|state| state.age) else { return };
            // What was held is not let through by the cut.
            if now != age || to_near.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
        _ = state.wait_for(|state| state.age != age) => {}
    }
}
