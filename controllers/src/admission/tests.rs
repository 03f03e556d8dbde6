//! Pushes against a store of one pod that is kept in memory: groups are applied with their compares, as etcd would.

use bytes::Bytes;
use podium_proto::records::deployment::Kind as DeploymentKind;
use podium_proto::records::{Deployment, Goal, Instance, ReplicaSet};
use podium_store::codec::{self, Record};
use podium_store::view::{Deletion, StoredDefinition};
use podium_types::definition::Change;
use podium_types::id::PodId;
use uuid::Uuid;

use super::*;
use crate::runtime::RandomIds;

struct World {
    view: PodView,
    revision: i64,
    now: i64,
}

fn held<T>(value: T, revision: i64) -> Held<T> {
    Held { value, mod_revision: revision, create_revision: revision }
}

fn record<R: Record>(bytes: Option<&Bytes>, revision: i64) -> Option<Held<R>> {
    bytes.map(|bytes| held(codec::decode(bytes).unwrap(), revision))
}

impl World {
    fn new() -> Self {
        Self { view: PodView::new(PodId::new("/web").unwrap()), revision: 10, now: 1_000_000 }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let found = self.view.keys().into_iter().find(|(key, _)| key == compare.key()).map(|(_, revision)| revision);
        match compare {
            Compare::Absent(_) => found.is_none(),
            Compare::Present(_) | Compare::SameLife(..) => found.is_some(),
            Compare::Unchanged(_, revision) => found == Some(*revision),
        }
    }

    /// Applies a group as etcd would; tells whether its compares held.
    fn commit(&mut self, group: &Group) -> bool {
        if !group.compares.iter().all(|compare| self.holds(compare)) {
            return false;
        }
        if !group.ops.is_empty() {
            self.revision += 1;
        }
        for op in &group.ops {
            let (key, value) = match op {
                Op::Put(key, value) | Op::PutLeased(key, value, _) => (key, Some(value)),
                Op::Delete(key) => (key, None),
            };
            self.write(key, value);
        }
        true
    }

    fn write(&mut self, key: &Key, value: Option<&Bytes>) {
        let (view, revision) = (&mut self.view, self.revision);
        match key {
            Key::Spec(_) => view.spec = value.map(|value| held(value.clone(), revision)),
            Key::Accepted(_) => view.accepted = record(value, revision),
            Key::Verdict(_) => view.verdict = record(value, revision),
            Key::Deployment(_) => view.deployment = record(value, revision),
            Key::Deleted(_) => view.deleted = value.map(|value| held(Deletion::from_json(value), revision)),
            Key::Version(_, version) => match value {
                Some(value) => _ = view.versions.insert(*version, held(StoredDefinition::new(value.clone()), revision)),
                None => _ = view.versions.remove(version),
            },
            other => panic!("admission writes no {other}"),
        }
    }

    /// `etcdctl put`.
    fn put(&mut self, spec: &str) {
        self.revision += 1;
        self.view.spec = Some(held(Bytes::from(spec.to_owned()), self.revision));
    }

    /// `etcdctl del`.
    fn del(&mut self) {
        self.revision += 1;
        self.view.spec = None;
    }

    /// Lets the controller act until it wants nothing, and tells when it wants to look again.
    fn settle(&mut self) -> Option<i64> {
        let admission = Admission::new(Settings::default());
        for _ in 0..10 {
            self.now += 10;
            let decision = admission.decide(&self.view, Now(self.now));
            if decision.intents.is_empty() {
                return decision.wake;
            }
            for group in admission.apply(&self.view, decision.intents, Now(self.now), &mut RandomIds) {
                assert!(self.commit(&group), "{group:?}");
            }
        }
        panic!("admission does not come to rest");
    }

    fn post(&mut self, spec: &str, force: bool) -> Result<PushPlan, PlanError> {
        self.now += 10;
        let definition = definition::read_as(spec.as_bytes(), &self.view.id, None, &Settings::default()).unwrap().definition;
        let push = Push { definition, source: PushSource::Api { spec_json: Bytes::from(spec.to_owned()) } };
        let plan = plan_push(Some(&self.view), push, self.now, Uuid::from_u128(7), force)?;
        assert!(self.commit(&plan.group), "{:?}", plan.group);
        Ok(plan)
    }

    fn accepted(&self) -> &Accepted {
        &self.view.accepted.as_ref().unwrap().value
    }

    fn deployment(&self) -> Option<DeploymentKind> {
        self.view.deployment.as_ref().map(|held| DeploymentKind::try_from(held.value.kind).unwrap())
    }

    fn errors(&self) -> Vec<String> {
        let verdict = self.view.verdict.iter().flat_map(|verdict| &verdict.value.violations);
        verdict.map(|violation| format!("{}: {}", violation.path, violation.message)).collect()
    }

    /// What upgrade does when no instance is left.
    fn finish_deletion(&mut self) {
        self.revision += 1;
        self.view.accepted = None;
        self.view.deployment = None;
        self.view.verdict = None;
    }
}

fn spec(instances: u32, mem: u32) -> String {
    format!(
        r#"{{"id": "/web", "scaling": {{"kind": "fixed", "instances": {instances}}}, "containers": [{{"name": "c", "resources": {{"mem": {mem}}}}}]}}"#
    )
}

#[test]
fn a_good_spec_takes_effect_in_one_transaction() {
    let mut world = World::new();
    world.put(&spec(1, 32));
    assert_eq!(world.settle(), None);
    let accepted = *world.accepted();
    assert_eq!(accepted.spec_revision, 11);
    assert_eq!(accepted.config_ms, accepted.version_ms);
    assert_eq!(world.deployment(), Some(DeploymentKind::Start));
    let stored = &world.view.versions[&Version::from_millis(accepted.version_ms)].value;
    assert_eq!(stored.definition().unwrap().version, Some(Version::from_millis(accepted.version_ms)));
    // Spec, then one more revision for everything else.
    assert_eq!(world.revision, 12);
}

#[test]
fn a_bad_spec_changes_nothing_but_the_verdict_and_a_good_one_clears_it() {
    let mut world = World::new();
    world.put(&spec(1, 32));
    world.settle();
    let before = *world.accepted();
    world.put(r#"{"id": "/web", "user": "", "containers": []}"#);
    world.settle();
    assert_eq!(*world.accepted(), before);
    assert_eq!(world.errors(), ["/containers: error.minLength (must have 1 item at least)", "/user: must not be empty"]);
    world.put(&spec(1, 32));
    world.settle();
    assert_eq!(world.errors(), Vec::<String>::new());
    assert_eq!(world.accepted().version_ms, before.version_ms, "the same definition is no new version");
    assert_ne!(world.accepted().spec_revision, before.spec_revision);
}

#[test]
fn what_is_no_json_is_refused_with_its_line_and_column() {
    let mut world = World::new();
    world.put("{\n  \"id\": 10mb\n}");
    world.settle();
    assert_eq!(world.errors(), [": Invalid JSON: expected `,` or `}` at line 2 column 11"]);
}

#[test]
fn a_spec_whose_id_is_not_its_keys_is_refused() {
    let mut world = World::new();
    world.put(&spec(1, 32).replace("/web", "/other"));
    world.settle();
    assert_eq!(world.errors(), ["/id: '/web' does not match definition's id ('/other')"]);
}

#[test]
fn scale_and_settings_change_the_version_and_not_the_config() {
    let mut world = World::new();
    world.put(&spec(1, 32));
    world.settle();
    let first = *world.accepted();
    world.view.deployment = None;
    world.put(&spec(3, 32));
    world.settle();
    let scaled = *world.accepted();
    assert!(scaled.version_ms > first.version_ms);
    assert_eq!((scaled.config_ms, world.deployment()), (first.config_ms, Some(DeploymentKind::Scale)));
    world.view.deployment = None;
    world.put(&spec(3, 32).replacen('{', r#"{"scheduling": {"killSelection": "OLDEST_FIRST"},"#, 1));
    world.settle();
    let settled = *world.accepted();
    assert!(settled.version_ms > scaled.version_ms);
    assert_eq!((settled.config_ms, world.deployment()), (first.config_ms, None));
    world.put(&spec(3, 64));
    world.settle();
    assert_eq!((world.accepted().config_ms, world.deployment()), (world.accepted().version_ms, Some(DeploymentKind::Restart)));
    assert_eq!(world.view.deployment.as_ref().unwrap().value.previous_version_ms, settled.version_ms);
}

#[test]
fn a_clock_that_stands_still_still_gives_new_versions() {
    let mut world = World::new();
    world.post(&spec(1, 32), false).unwrap();
    let first = world.accepted().version_ms;
    world.now = 0;
    world.post(&spec(1, 33), true).unwrap();
    assert_eq!(world.accepted().version_ms, first + 1);
}

#[test]
fn the_api_writes_the_spec_too_and_admission_has_nothing_left_to_do() {
    let mut world = World::new();
    let plan = world.post(&spec(1, 32), false).unwrap();
    assert_eq!((plan.change, plan.deployment), (Change::Config, Some(Uuid::from_u128(7))));
    assert_eq!(world.accepted().spec_revision, 0);
    assert_eq!(world.view.spec.as_ref().unwrap().value, spec(1, 32).as_bytes());
    let revision = world.revision;
    world.settle();
    assert_eq!(world.revision, revision);
}

#[test]
fn the_api_is_locked_by_a_running_deployment_unless_forced() {
    let mut world = World::new();
    world.post(&spec(1, 32), false).unwrap();
    let running = world.view.deployment.as_ref().unwrap().value.id.clone();
    assert_eq!(world.post(&spec(2, 32), false).unwrap_err(), PlanError::Locked { deployment: running });
    assert_eq!(world.post(&spec(1, 32), false).unwrap().deployment, None, "nothing changes, nothing waits");
    assert_eq!(world.post(&spec(2, 32), true).unwrap().change, Change::ScaleOnly);
    // One that began since the view was taken is compared.
    world.view.deployment = None;
    let plan = world.post(&spec(3, 32), false).unwrap();
    assert!(plan.group.compares.contains(&Compare::Absent(Key::Deployment(world.view.id.clone()))));
}

#[test]
fn the_very_same_push_again_writes_nothing() {
    let mut world = World::new();
    let first = world.post(&spec(1, 32), false).unwrap();
    let revision = world.revision;
    let again = world.post(&spec(1, 32), false).unwrap();
    assert_eq!((again.version, again.change, world.revision), (first.version, Change::Nothing, revision));
    assert_eq!(again.json, first.json);
    // Another spelling of the same is kept, but is no new version.
    let respelt = world.post(&format!(" {}", spec(1, 32)), false).unwrap();
    assert_eq!((respelt.version, world.revision), (first.version, revision + 1));
    world.settle();
    assert_eq!(world.revision, revision + 1);
}

#[test]
fn a_deleted_spec_deletes_the_pod_and_keeps_its_definition_until_the_end() {
    let mut world = World::new();
    world.put(&spec(1, 32));
    world.settle();
    world.del();
    world.settle();
    assert!(!is_active(&world.view));
    assert_eq!(world.deployment(), Some(DeploymentKind::Stop));
    assert_eq!(world.view.versions.len(), 1);
}

#[test]
fn the_api_deletes_spec_and_pod_together_and_only_once() {
    let mut world = World::new();
    world.post(&spec(1, 32), false).unwrap();
    let locked = plan_delete(&world.view, Source::Api, 1, Uuid::nil(), false).unwrap_err();
    assert!(matches!(locked, PlanError::Locked { .. }));
    let plan = plan_delete(&world.view, Source::Api, 1, Uuid::nil(), true).unwrap();
    assert!(world.commit(&plan.group));
    assert!(world.view.spec.is_none());
    let again = plan_delete(&world.view, Source::Api, 1, Uuid::nil(), true).unwrap_err();
    assert_eq!(again, PlanError::NotFound(world.view.id.clone()));
    let revision = world.revision;
    world.settle();
    assert_eq!(world.revision, revision);
}

#[test]
fn a_push_while_the_pod_is_being_deleted_revives_it_with_a_new_config() {
    let mut world = World::new();
    world.put(&spec(1, 32));
    world.settle();
    let old = world.accepted().config_ms;
    world.del();
    world.settle();
    world.put(&spec(1, 32));
    world.settle();
    assert!(is_active(&world.view));
    assert!(world.accepted().config_ms > old);
    assert_eq!(world.deployment(), Some(DeploymentKind::Start));
}

#[test]
fn a_pod_that_comes_back_goes_on_with_its_history() {
    let mut world = World::new();
    world.post(&spec(1, 32), false).unwrap();
    let first = world.accepted().version_ms;
    let plan = plan_delete(&world.view, Source::Api, world.now, Uuid::nil(), true).unwrap();
    world.commit(&plan.group);
    world.finish_deletion();
    world.settle();
    assert!(world.view.deleted.is_some());
    world.now = 0;
    world.post(&spec(1, 32), false).unwrap();
    assert!(world.view.deleted.is_none(), "its history ages no more");
    assert_eq!(world.accepted().version_ms, first + 1);
    assert_eq!(world.accepted().config_ms, first + 1);
    assert_eq!(world.view.versions.len(), 2);
}

#[test]
fn the_verdict_of_a_spec_that_was_deleted_goes() {
    let mut world = World::new();
    world.put("[]");
    world.settle();
    assert_eq!(world.errors().len(), 1);
    world.del();
    world.settle();
    assert!(world.view.is_empty());
}

#[test]
fn the_history_of_a_deleted_pod_is_kept_for_thirty_days() {
    let mut world = World::new();
    world.put(&spec(1, 32));
    world.settle();
    world.del();
    world.settle();
    world.finish_deletion();
    let end = world.settle().unwrap();
    assert_eq!(end, world.view.deleted.as_ref().unwrap().value.at.unwrap().as_millis() + KEPT_MS);
    assert!(history_only(&world.view), "{:?}", world.view);
    // A refused push in between stops no clock.
    world.put("[]");
    assert_eq!(world.settle(), Some(end));
    world.del();
    assert_eq!(world.settle(), Some(end));
    assert!(history_only(&world.view), "{:?}", world.view);
    world.now = end;
    world.settle();
    assert!(world.view.is_empty(), "{:?}", world.view);
}

fn history_only(view: &PodView) -> bool {
    view.keys().iter().all(|(key, _)| key.kind() == Kind::Version)
}

#[test]
fn a_note_that_tells_no_time_is_noted_anew() {
    let mut world = World::new();
    world.put(&spec(1, 32));
    world.settle();
    world.del();
    world.settle();
    world.finish_deletion();
    world.view.deleted = Some(held(Deletion::from_json(b"long ago"), 5));
    let end = world.settle().unwrap();
    assert_eq!(end, world.view.deleted.as_ref().unwrap().value.at.unwrap().as_millis() + KEPT_MS);
}

#[test]
fn a_pod_that_is_created_while_its_end_is_noted_is_not_noted() {
    let mut world = World::new();
    world.put(&spec(1, 32));
    world.settle();
    world.del();
    world.settle();
    world.finish_deletion();
    let note = Admission::default().apply(&world.view, vec![Intent::Age], Now(world.now), &mut RandomIds);
    let before = world.view.deleted.clone();
    world.post(&spec(1, 32), false).unwrap();
    assert!(!world.commit(&note[0]), "the pod is back");
    assert!(before.is_none() && world.view.deleted.is_none());
}

#[test]
fn fifty_versions_are_kept_and_never_one_in_use_pruned() {
    let mut world = World::new();
    for mem in 1..=60 {
        world.put(&spec(1, mem));
        world.settle();
    }
    assert_eq!(world.view.versions.len(), KEPT_VERSIONS);
    let oldest: Vec<Version> = world.view.versions.keys().take(2).copied().collect();
    world.view.sets.insert(oldest[0], held(ReplicaSet::default(), 5));
    world.view.instances.insert(Uuid::nil(), held(Instance { config_ms: oldest[1].as_millis(), ..Default::default() }, 5));
    for mem in 61..=70 {
        world.put(&spec(1, mem));
        world.settle();
    }
    assert_eq!(world.view.versions.len(), KEPT_VERSIONS);
    assert!(oldest.iter().all(|version| world.view.versions.contains_key(version)));
}

#[test]
fn persistent_volumes_refuse_an_update_that_would_move_them() {
    let resident = |size: u32| {
        format!(
            r#"{{"id": "/web", "role": "data", "containers": [{{"name": "c", "resources": {{}}, "volumeMounts": [{{"name": "v", "mountPath": "v"}}]}}],
                "volumes": [{{"name": "v", "persistent": {{"size": {size}}}}}]}}"#
        )
    };
    let settings = Settings { default_role: "data".to_owned(), ..Settings::default() };
    let mut world = World::new();
    for size in [1, 2] {
        world.put(&resident(size));
        let decision = decide(&world.view, &settings, Now(size.into()));
        for group in Admission::new(settings.clone()).apply(&world.view, decision.intents, Now(size.into()), &mut RandomIds) {
            assert!(world.commit(&group));
        }
    }
    assert_eq!(world.errors(), ["/volumes: persistent volumes cannot be updated"]);
}

#[test]
fn a_stale_view_fails_its_compares_instead_of_writing() {
    let mut world = World::new();
    world.put(&spec(1, 32));
    let admission = Admission::default();
    let decision = admission.decide(&world.view, Now(5));
    let groups = admission.apply(&world.view, decision.intents, Now(5), &mut RandomIds);
    world.put(&spec(2, 32));
    assert!(groups.iter().all(|group| !world.commit(group)));
}

#[test]
fn a_record_of_a_newer_podium_is_left_alone() {
    let mut world = World::new();
    world.put(&spec(1, 32));
    world.view.unreadable.insert(Key::Accepted(world.view.id.clone()), 5);
    assert_eq!(decide(&world.view, &Settings::default(), Now(5)), Decision::nothing());
    assert!(matches!(world.post(&spec(1, 32), true), Err(PlanError::Unreadable(_))));
}

#[test]
fn what_is_accepted_at_the_limit_can_be_read_again_and_sent_back_and_a_byte_more_is_refused() {
    let padded = |length: usize| {
        let value = "x".repeat(length);
        format!(r#"{{"id":"/web","environment":{{"PADDING":"{value}"}},"containers":[{{"name":"c","resources":{{}}}}]}}"#)
    };
    let stored = |world: &World| world.view.versions.last_key_value().unwrap().1.value.json.clone();
    let mut world = World::new();
    world.post(&padded(0), false).unwrap();
    let room = definition::MAX_BYTES - stored(&world).len();

    world.post(&padded(room), true).unwrap();
    let json = stored(&world);
    assert_eq!(json.len(), definition::MAX_BYTES);
    assert!(definition::read_stored(&json).is_ok());
    assert!(definition::read(&json, &Settings::default()).is_ok());
    assert!(padded(room + 1).len() < definition::MAX_BYTES);
    assert!(matches!(world.post(&padded(room + 1), true), Err(PlanError::Refused(_))));
}

#[test]
fn a_definition_that_swells_beyond_the_limit_is_refused() {
    let endpoints = |n: u32| (0..10).map(|m| format!(r#"{{"name":"e{n}-{m}"}}"#)).collect::<Vec<_>>().join(",");
    let container = |n| format!(r#"{{"name":"c{n}","resources":{{}},"endpoints":[{}]}}"#, endpoints(n));
    let containers: Vec<String> = (0..900).map(container).collect();
    let spec = format!(r#"{{"id":"/web","containers":[{}]}}"#, containers.join(","));
    assert!(spec.len() < definition::MAX_BYTES);
    let mut world = World::new();
    world.put(&spec);
    world.settle();
    assert!(world.errors()[0].contains("with all its defaults"), "{:?}", world.errors());
}

#[test]
fn a_deployment_of_another_pod_state_is_superseded() {
    let mut world = World::new();
    world.post(&spec(1, 32), false).unwrap();
    world.put(&spec(1, 64));
    world.settle();
    let Deployment { kind, version_ms, .. } = world.view.deployment.as_ref().unwrap().value.clone();
    assert_eq!((DeploymentKind::try_from(kind), version_ms), (Ok(DeploymentKind::Restart), world.accepted().version_ms));
}

#[test]
fn a_push_of_the_same_config_takes_the_running_deployment_s_place() {
    let oldest = |text: String| text.replacen('{', r#"{"scheduling": {"killSelection": "OLDEST_FIRST"},"#, 1);
    let mut world = World::new();
    world.post(&spec(1, 32), false).unwrap();
    for (text, kind) in [
        (oldest(spec(1, 32)), DeploymentKind::Scale),
        (oldest(spec(1, 64)), DeploymentKind::Restart),
        (oldest(spec(2, 64)), DeploymentKind::Restart),
        (spec(2, 64), DeploymentKind::Restart),
    ] {
        let before = world.accepted().version_ms;
        world.put(&text);
        world.settle();
        let deployment = &world.view.deployment.as_ref().unwrap().value;
        let of = (deployment.version_ms, deployment.previous_version_ms);
        assert_eq!((world.deployment(), of), (Some(kind), (world.accepted().version_ms, before)), "{text}");
    }
}

#[test]
fn a_roll_back_never_returns_to_a_config_that_the_history_has_let_go_of() {
    let mut world = World::new();
    let first = world.post(&spec(1, 32), true).unwrap();
    world.post(&spec(1, 64), true).unwrap();
    let running = Instance { config_ms: first.config.as_millis(), goal: Goal::Running.into(), ..Instance::default() };
    world.view.instances.insert(Uuid::from_u128(1), held(running, world.revision));
    let back = Push { definition: (*first.definition).clone(), source: PushSource::Api { spec_json: Bytes::from(spec(1, 32)) } };
    let plan = plan_back(&world.view, back, world.now + 10, Uuid::from_u128(8)).unwrap();
    assert_eq!(plan.config, first.config, "it runs still");
    let version = world.view.versions.remove(&first.config).unwrap();
    assert!(!world.commit(&plan.group), "it was pruned, and nothing could start of it");
    world.view.versions.insert(first.config, version);
    assert!(world.commit(&plan.group));
}
