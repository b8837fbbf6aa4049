//! Generates a client of the edge protocol, apart from the one the product uses.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = "../wire/proto/edge.proto";
    println!("cargo::rerun-if-changed={file}");
    let descriptors = protox::compile([file], ["../wire/proto"])?;
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;
    Ok(())
}
