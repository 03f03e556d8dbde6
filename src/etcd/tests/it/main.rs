//! The server as its clients meet it: over the network, with the real etcd client, `etcdctl`, and beside a real etcd.

mod differential;
mod durability;
mod etcdctl;
mod fixture;
mod limits;
mod power;
mod real;
mod wire;
