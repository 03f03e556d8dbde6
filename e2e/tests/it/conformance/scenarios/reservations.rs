//! Dynamic reservations and persistent volumes: made, seen, refused, used and undone.

use serde_json::{Value, json};

use super::super::stage::{Framework, Stage, executor, info, info_with, launch_group, ports, scalar, with};
use super::tasks::{command, own_info, to_the_end};

fn reservation() -> Value {
    json!([{ "type": "DYNAMIC", "role": "pods", "labels": { "labels": [{ "key": "of", "value": "somebody" }] } }])
}

fn reserved(resource: Value) -> Value {
    with(resource, json!({ "reservations": reservation() }))
}

fn volume(id: &str, size: f64) -> Value {
    let disk = json!({ "persistence": { "id": id }, "volume": { "container_path": "data", "mode": "RW" } });
    with(reserved(scalar("disk", size)), json!({ "disk": disk }))
}

fn reserve(resources: &[Value]) -> Value {
    json!({ "type": "RESERVE", "reserve": { "resources": resources } })
}

fn unreserve(resources: &[Value]) -> Value {
    json!({ "type": "UNRESERVE", "unreserve": { "resources": resources } })
}

fn create(volumes: &[Value]) -> Value {
    json!({ "type": "CREATE", "create": { "volumes": volumes } })
}

fn destroy(volumes: &[Value]) -> Value {
    json!({ "type": "DESTROY", "destroy": { "volumes": volumes } })
}

/// What an offer holds, in an order of its own.
fn held(offer: &Value) -> Value {
    let mut all: Vec<Value> = offer["resources"].as_array().cloned().unwrap_or_default();
    all.sort_by_key(Value::to_string);
    json!(all)
}

/// Subscribes, and keeps the first of two agents.
async fn first_agent(stage: &mut Stage, info: Value) -> (Framework, Value) {
    let mut framework = stage.subscribe(info).await;
    let offers = stage.offers(&mut framework, 2).await;
    framework.decline(&offers[1..], 3600.0).await;
    (framework, offers[0].clone())
}

/// Accepts for this, and waits for what is left.
async fn next(stage: &mut Stage, framework: &mut Framework, offer: &Value, operations: Vec<Value>) -> Value {
    framework.accept(&[offer], operations).await;
    stage.offers(framework, 1).await.remove(0)
}

async fn as_operators_see_it(stage: &mut Stage, step: &str) {
    let slaves = stage.connection.get("/slaves").await.json();
    let first =
        slaves["slaves"].as_array().into_iter().flatten().find(|slave| slave["hostname"] == "simulated-0").cloned().unwrap_or_default();
    let mut full: Vec<Value> = first["reserved_resources_full"]["pods"].as_array().cloned().unwrap_or_default();
    full.sort_by_key(Value::to_string);
    let sums = ["resources", "reserved_resources", "unreserved_resources", "used_resources"].map(|field| first[field].clone());
    stage.told(format!("{step}: of the agent"), json!([sums, full]));
    let roles = stage.connection.get("/roles").await.json();
    let ours = roles["roles"].as_array().into_iter().flatten().find(|role| role["name"] == "pods").cloned().unwrap_or_default();
    stage.told(format!("{step}: of the role"), ours["reserved"].clone());
}

pub async fn made_and_undone(stage: &mut Stage) {
    let (mut framework, offer) = first_agent(stage, info()).await;
    let all =
        [reserved(scalar("cpus", 1.5)), reserved(scalar("mem", 64.0)), reserved(scalar("disk", 100.0)), reserved(ports(10_005, 10_007))];
    let offer = next(stage, &mut framework, &offer, vec![reserve(&all), create(&[volume("a", 60.0)])]).await;
    stage.told("reserved, and a volume created", held(&offer));
    as_operators_see_it(stage, "reserved").await;
    let offer = next(stage, &mut framework, &offer, vec![reserve(&all[..1]), create(&[volume("b", 30.0)])]).await;
    stage.told("more of both", held(&offer));
    framework.teardown().await;

    // It is the role's, whoever comes.
    let (mut framework, offer) = first_agent(stage, with(info_with(&["MULTI_ROLE"]), json!({ "name": "another" }))).await;
    stage.told("another framework of the role, in the old format", held(&offer));
    framework.teardown().await;
    let (mut framework, offer) = first_agent(stage, with(info(), json!({ "roles": ["pods/below"] }))).await;
    stage.told("a role below", held(&offer));
    framework.teardown().await;
    let (mut framework, offer) = first_agent(stage, with(info(), json!({ "roles": ["web"] }))).await;
    stage.told("another role", held(&offer));
    framework.teardown().await;

    let (mut framework, offer) = first_agent(stage, info()).await;
    let rest =
        [reserved(scalar("cpus", 3.0)), reserved(scalar("mem", 64.0)), reserved(scalar("disk", 100.0)), reserved(ports(10_005, 10_007))];
    let undo = vec![destroy(&[volume("a", 60.0)]), destroy(&[volume("b", 30.0)]), unreserve(&rest)];
    let offer = next(stage, &mut framework, &offer, undo).await;
    stage.told("undone", held(&offer));
    as_operators_see_it(stage, "undone").await;
    framework.teardown().await;
}

/// Tries these on an offer, under names of their own: the events about each, and what is offered after that.
async fn each_answered<'a>(
    stage: &mut Stage,
    framework: &mut Framework,
    offer: &Value,
    all: &[(&'a str, Value)],
) -> (Vec<(&'a str, Vec<Value>)>, Value) {
    let named = |number: usize, operation: &Value| with(operation.clone(), json!({ "id": { "value": format!("o{number}") } }));
    let operations = all.iter().enumerate().map(|(number, (_, operation))| named(number, operation)).collect();
    framework.accept(&[offer], operations).await;
    let events = framework.settle().await;
    let of = |number: usize| {
        let id = format!("o{number}");
        let about = |event: &&Value| event["update_operation_status"]["status"]["operation_id"]["value"] == id.as_str();
        events.iter().filter(about).cloned().collect()
    };
    let told = all.iter().enumerate().map(|(number, (step, _))| (*step, of(number))).collect();
    (told, stage.offers(framework, 1).await.remove(0))
}

pub async fn refused(stage: &mut Stage) {
    let (mut framework, offer) = first_agent(stage, info()).await;
    let disk = reserved(scalar("disk", 100.0));
    let offer = next(stage, &mut framework, &offer, vec![reserve(std::slice::from_ref(&disk)), create(&[volume("a", 60.0)])]).await;
    let read_only =
        with(volume("r", 5.0), json!({ "disk": { "persistence": { "id": "r" }, "volume": { "container_path": "data", "mode": "RO" } } }));
    let of_host = with(
        volume("h", 5.0),
        json!({ "disk": { "persistence": { "id": "h" }, "volume": { "container_path": "d", "host_path": "/h", "mode": "RW" } } }),
    );
    let nowhere = with(volume("n", 5.0), json!({ "disk": { "persistence": { "id": "n" } } }));
    let nameless = with(volume("n", 5.0), json!({ "disk": { "volume": { "container_path": "data", "mode": "RW" } } }));
    let all = [
        ("RESERVE of a volume", reserve(&[volume("v", 5.0)])),
        ("UNRESERVE of a volume", unreserve(&[volume("a", 60.0)])),
        ("UNRESERVE of nothing", unreserve(&[])),
        ("CREATE of an id that there is", create(&[volume("a", 5.0)])),
        ("CREATE of one id twice", create(&[volume("t", 5.0), volume("t", 5.0)])),
        ("CREATE of a bad id", create(&[volume("a/b", 5.0)])),
        ("CREATE of more than is reserved", create(&[volume("m", 50.0)])),
        ("CREATE read-only", create(&[read_only])),
        ("CREATE with a path of the machine", create(&[of_host])),
        ("CREATE without a path", create(&[nowhere])),
        ("CREATE without an id", create(&[nameless])),
        ("CREATE of nothing", create(&[])),
        ("DESTROY of another size", destroy(&[volume("a", 5.0)])),
        ("DESTROY of what is no volume", destroy(&[disk])),
        ("DESTROY of nothing", destroy(&[])),
    ];
    let (told, offer) = each_answered(stage, &mut framework, &offer, &all).await;
    for (step, of_it) in told {
        // The order in which all that there is stands before it comes of what was done to it.
        let told = json!(of_it).to_string();
        let tail = told.split_once(" does not contain ").map(|(_, tail)| format!("does not contain {tail}"));
        stage.told(step, tail.map_or_else(|| json!(of_it), Value::String));
    }
    stage.told("left as it was", held(&offer));
    next(stage, &mut framework, &offer, vec![destroy(&[volume("a", 60.0)]), unreserve(&[reserved(scalar("disk", 100.0))])]).await;
    framework.teardown().await;
}

pub async fn principals(stage: &mut Stage) {
    let (mut framework, offer) = first_agent(stage, with(info(), json!({ "principal": "somebody" }))).await;
    let of = |principal: &str| json!([{ "type": "DYNAMIC", "role": "pods", "principal": principal }]);
    let disk = |reservations: Value| with(scalar("disk", 10.0), json!({ "reservations": reservations }));
    let volume = |principal: Value| {
        let disk = json!({ "persistence": with(json!({ "id": "p" }), principal), "volume": { "container_path": "p", "mode": "RW" } });
        with(scalar("disk", 10.0), json!({ "reservations": of("somebody"), "disk": disk }))
    };
    let all = [
        ("RESERVE for nobody", reserve(&[disk(reservation())])),
        ("RESERVE for somebody else", reserve(&[disk(of("else"))])),
        ("CREATE for nobody", create(&[volume(json!({}))])),
        ("CREATE for somebody else", create(&[volume(json!({ "principal": "else" }))])),
    ];
    let (told, offer) = each_answered(stage, &mut framework, &offer, &all).await;
    for (step, of_it) in told {
        stage.told(step, json!(of_it));
    }
    let own = volume(json!({ "principal": "somebody" }));
    let offer = next(stage, &mut framework, &offer, vec![reserve(&[disk(of("somebody"))]), create(std::slice::from_ref(&own))]).await;
    stage.told("its own", held(&offer));
    next(stage, &mut framework, &offer, vec![destroy(&[own]), unreserve(&[disk(of("somebody"))])]).await;
    framework.teardown().await;
}

/// A group whose executor has the volume, and whose task finds it below `mnt`.
fn group_on(framework: &Framework, offer: &Value, id: &str, text: &str) -> Value {
    let own = [reserved(scalar("cpus", 0.1)), reserved(scalar("mem", 32.0)), reserved(scalar("disk", 10.0)), volume("v", 60.0)];
    let executor = with(executor(&format!("executor-{id}"), &framework.id), json!({ "resources": own }));
    let mount = json!({ "container_path": "mnt", "mode": "RW", "source": { "type": "SANDBOX_PATH", "sandbox_path": { "type": "PARENT", "path": "data" } } });
    let task = with(
        command(id, offer, text),
        json!({
            "resources": [reserved(scalar("cpus", 0.1)), reserved(scalar("mem", 32.0))],
            "container": { "type": "MESOS", "volumes": [mount] },
        }),
    );
    launch_group(executor, vec![task])
}

pub async fn a_volume_outlives_its_tasks(stage: &mut Stage) {
    stage.names.left_out = vec!["network_infos"];
    let mut framework = stage.subscribe(own_info()).await;
    let offer = stage.offers(&mut framework, 1).await.remove(0);
    let all = [reserved(scalar("cpus", 0.2)), reserved(scalar("mem", 64.0)), reserved(scalar("disk", 70.0))];
    let writes = group_on(&framework, &offer, "writes", "echo kept > mnt/file");
    framework.accept(&[&offer], vec![reserve(&all), create(&[volume("v", 60.0)]), writes]).await;
    let told = to_the_end(&mut framework, 1).await;
    stage.told("reserved, created and launched at once", told);
    for (id, text) in [("reads", "grep kept mnt/file"), ("finds-nothing-else", "test $(ls mnt | wc -l) = 1")] {
        let offer = whole(stage, &mut framework).await;
        stage.told(format!("offered before {id}"), held(&offer));
        let group = group_on(&framework, &offer, id, text);
        framework.accept(&[&offer], vec![group]).await;
        let told = to_the_end(&mut framework, 1).await;
        stage.told(id, told);
    }
    let offer = whole(stage, &mut framework).await;
    framework.accept(&[&offer], vec![destroy(&[volume("v", 60.0)]), create(&[volume("v", 60.0)])]).await;
    let offer = whole(stage, &mut framework).await;
    let group = group_on(&framework, &offer, "finds-nothing", "test -d mnt -a ! -e mnt/file");
    framework.accept(&[&offer], vec![group]).await;
    let told = to_the_end(&mut framework, 1).await;
    stage.told("destroyed and created again", told);
    let offer = whole(stage, &mut framework).await;
    framework.accept(&[&offer], vec![destroy(&[volume("v", 60.0)]), unreserve(&all)]).await;
    let offer = stage.offers(&mut framework, 1).await.remove(0);
    stage.told("undone", held(&offer));
    framework.teardown().await;
}

/// An offer with the volume in it: what an executor has used comes back with its end.
async fn whole(stage: &mut Stage, framework: &mut Framework) -> Value {
    loop {
        let offer = stage.offers(framework, 1).await.remove(0);
        let resources = offer["resources"].as_array().cloned().unwrap_or_default();
        if resources.iter().any(|resource| !resource["disk"].is_null()) {
            return offer;
        }
        framework.decline(&[offer], 0.0).await;
    }
}
