//! Entries by the command line, at a server of its own.

use serde_json::Value;

use crate::rollout::Server;

#[test]
fn entries_are_applied_listed_changed_and_told_of() {
    let server = Server::start();
    server.enroll("press-1");
    let file = server.at("entries.yaml");
    let of = |uids: std::ops::Range<u32>| -> String {
        let entry = |uid| {
            format!(
                "- {{spiffe_id: spiffe://test.assay.example/web-{uid}, parent: press-1, selectors: [\"unix:uid:{uid}\"]}}\n"
            )
        };
        uids.map(entry).collect()
    };
    std::fs::write(&file, of(0..1200)).unwrap();
    let apply = ["entry", "apply", "-f", file.to_str().unwrap()];
    server.check(&apply, &["1200 made or changed, 0 as they are", "web-1199"]);
    server.check(&apply, &["0 made or changed, 1200 as they are"]);

    let json = |arguments: &[&str]| -> Value {
        let (exit, printed) = server.run(&[arguments, &["--json"]].concat());
        assert_eq!(exit, 0, "{printed}");
        serde_json::from_str(&printed).unwrap()
    };
    assert_eq!(
        json(&["entry", "list"])["entries"].as_array().unwrap().len(),
        1200,
        "over more pages than one"
    );
    assert_eq!(json(&["entry", "list", "--count"])["count"], 1200);
    server.check(
        &["entry", "list", "--count", "--spiffe-id", "spiffe://test.assay.example/web-11*"],
        &["111\n"],
    );
    let one =
        json(&["entry", "list", "--selector", "unix:uid:7", "--parent", "press-1"])["entries"][0].clone();
    let id = one["id"].as_str().unwrap();
    assert_eq!(json(&["entry", "show", id]), one);

    let updated = json(&["entry", "update", id, "--hint", "internal", "--dns", "web.internal"]);
    assert_eq!((&updated["hint"], &updated["dns_names"][0]), (&"internal".into(), &"web.internal".into()));
    assert_eq!((&updated["ttl_seconds"], &updated["selectors"]), (&one["ttl_seconds"], &one["selectors"]));
    let cleared = json(&["entry", "update", id, "--hint", "", "--dns", ""]);
    assert_eq!((&cleared["hint"], &cleared["dns_names"]), (&"".into(), &serde_json::json!([])));
    server.check(&["entry", "who", id], &["press-1", "the device is enrolled"]);

    std::fs::write(
        &file,
        of(1199..1201) + "- {spiffe_id: spiffe://test.assay.example/x, parent: press-1, selectors: []}\n",
    )
    .unwrap();
    server.check_refused(&apply, "entry 3 of the list");
    assert_eq!(json(&["entry", "list", "--count"])["count"], 1200);
}
