//! Compiles the .proto files with protox: no protoc is needed on the machine.

use std::path::PathBuf;

use prost::Message as _;

const FILES: &[&str] = &[
    "mesos/v1/mesos.proto",
    "mesos/v1/scheduler.proto",
    "mesos/v1/executor.proto",
    "mesos/v1/maintenance.proto",
    "mesos/v1/quota.proto",
    "mesos/v1/allocator.proto",
    "mesos/v1/master.proto",
    "mesos/v1/agent.proto",
    "podium/v1/records.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    prost_build::Config::new().enable_type_names().bytes(["."]).btree_map(["."]).compile_fds(descriptors.clone())?;
    // The JSON dialect is read from these descriptors at run time: comments are not needed there.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    Ok(())
}
