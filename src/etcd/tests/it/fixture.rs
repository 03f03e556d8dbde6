//! A server of our own in a folder of its own.

use std::path::Path;

use etcd_client::Client;
use podium_etcd::{Config, Retention, Server};
use tokio::net::TcpListener;

/// Starts a server on a free port that keeps all history, as an etcd without options does.
pub async fn start(folder: &Path) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let config = Config { retention: Retention::UNBOUNDED, ..Config::new(listener, folder) };
    Server::start(config).await.expect("the folder is ours")
}

pub async fn client(server: &Server) -> Client {
    Client::connect([server.address().to_string()], None).await.expect("the server answers")
}
