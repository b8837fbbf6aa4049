//! Generates the protobuf types with a compiler in Rust, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "proto/edge.proto",
        "proto/workload.proto",
        "proto/envoy_sds.proto",
        "proto/grpc_health.proto",
        "proto/spire/types.proto",
        "proto/spire/agent.proto",
        "proto/spire/bundle.proto",
        "proto/spire/entry.proto",
        "proto/spire/svid.proto",
        "proto/spire/trustdomain.proto",
    ];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".assay.edge.v1")
        // Once in a boot, and larger than all that an answer has besides.
        .boxed(".assay.edge.v1.Evidence.banks")
        .codec_path("crate::codec::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}
