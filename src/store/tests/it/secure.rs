//! A real etcd that wants certificates and passwords.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd_client::{AlarmAction, AlarmType, Certificate, Client, ConnectOptions, Identity, Permission, PermissionType, TlsOptions};
use podium_store::writer::Outcome;
use podium_store::{Election, Leadership, Session, Store, StoreConfig, StoreError, StoreTls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::harness::{LONG, Log, commit, create, indexed, pod, session, short_session, within};

/// A lease that is over soon when nobody keeps it alive.
const SOON_OVER: Duration = Duration::from_secs(3);

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    /// A certificate and its key.
    fn sign(&self, names: &[&str]) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
    }
}

struct Etcd {
    child: Child,
    log: Log,
    endpoint: String,
    authority: Authority,
    _folder: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn write(path: &Path, text: &[u8]) -> String {
    std::fs::write(path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

impl Etcd {
    /// One that asks for certificates, with passwords switched on: `podium` may use `/podium/` and no more.
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let (certificate, key) = authority.sign(&["127.0.0.1"]);
        let at = folder.path().to_owned();
        let file = |name: &str, text: &[u8]| write(&at.join(name), text);
        let (ca, certificate, key) = (file("ca.pem", &authority.pem()), file("cert.pem", &certificate), file("key.pem", &key));
        let endpoint = format!("https://127.0.0.1:{}", free_port());
        let peer = format!("http://127.0.0.1:{}", free_port());
        let mut child = Command::new(std::env::var_os("PODIUM_TEST_ETCD").unwrap_or_else(|| "etcd".into()))
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .args(["--name", "test", "--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("test={peer}"), "--logger", "zap", "--log-level", "info"])
            .args(["--trusted-ca-file", &ca, "--cert-file", &certificate, "--key-file", &key, "--client-cert-auth"])
            // A token is forgotten after a second: a client has to get itself another.
            .args(["--auth-token-ttl", "1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("etcd is installed");
        let log = Log::of(&mut child);
        let mut etcd = Self { child, log, endpoint, authority, _folder: folder };
        etcd.log.says(&["serving client traffic"]).await;
        let admin = within(etcd.admin()).await;
        let mut auth = admin.auth_client();
        auth.role_add("podium").await.unwrap();
        let ours = Permission::new(PermissionType::Readwrite, "/podium/").with_prefix();
        auth.role_grant_permission("podium", ours).await.unwrap();
        auth.user_add("podium", "correct horse", None).await.unwrap();
        auth.user_grant_role("podium", "podium").await.unwrap();
        auth.user_add("root", "root password", None).await.unwrap();
        auth.user_grant_role("root", "root").await.unwrap();
        auth.auth_enable().await.unwrap();
        etcd
    }

    /// Whom everything is allowed, as soon as users are asked for.
    async fn root(&self) -> Client {
        self.client(ConnectOptions::new().with_user("root", "root password")).await
    }

    async fn admin(&self) -> Client {
        self.client(ConnectOptions::new()).await
    }

    async fn client(&self, options: ConnectOptions) -> Client {
        let (certificate, key) = self.authority.sign(&["admin"]);
        let tls =
            TlsOptions::new().ca_certificate(Certificate::from_pem(self.authority.pem())).identity(Identity::from_pem(certificate, key));
        Client::connect([&self.endpoint], Some(options.with_tls(tls))).await.unwrap()
    }

    fn config(&self) -> StoreConfig {
        let mut config = StoreConfig::new([self.endpoint.clone()]);
        config.tls = Some(StoreTls { ca: Some(self.authority.pem()), identity: Some(self.authority.sign(&["podium"])), domain: None });
        config.user = Some(("podium".to_owned(), "correct horse".to_owned()));
        config
    }

    /// Somebody with our password who leads.
    async fn leading(&self, ttl: Duration) -> (Store, Session, Leadership) {
        let store = within(Store::connect(self.config())).await.unwrap();
        let session = short_session(&store, "leader", ttl);
        let leadership = within(Election::new(&session, &indexed(&store).await, "scaling").campaign()).await;
        (store, session, leadership)
    }

    /// Changes our password.
    async fn password(&self, password: &str) {
        // By another login each time: its token runs out, too.
        let mut auth = within(self.root()).await.auth_client();
        auth.user_change_password("podium", password).await.unwrap();
    }

    async fn refusal(&self, change: impl FnOnce(&mut StoreConfig)) -> StoreError {
        let mut config = self.config();
        change(&mut config);
        within(Store::connect(config)).await.err().expect("it is refused")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_works_with_certificates_and_a_user_whose_token_runs_out() {
    let mut etcd = Etcd::start().await;
    let store = within(Store::connect(etcd.config())).await.unwrap();
    let index = indexed(&store).await;
    let session = session(&store, "me");
    let leadership = within(Election::new(&session, &index, "scaling").campaign()).await;
    for n in 1..=3 {
        let revision = commit(&store, create(&pod("/a"), n)).await;
        within(index.wait_for(revision, LONG)).await.unwrap();
        // The token by which that was written runs out.
        etcd.log.skip();
        etcd.log.says(&["deleted a simple token", "podium"]).await;
    }
    assert!(!leadership.lost().is_cancelled());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_password_was_changed_lets_go_and_another_leads() {
    let etcd = Etcd::start().await;
    let (_store, session, leadership) = etcd.leading(SOON_OVER).await;
    etcd.password("new horse").await;
    let mut config = etcd.config();
    config.user = Some(("podium".to_owned(), "new horse".to_owned()));
    let renewed = within(Store::connect(config)).await.unwrap();
    let next = short_session(&renewed, "new password", SOON_OVER);
    let successor = Election::new(&next, &indexed(&renewed).await, "scaling");
    within(leadership.resign()).await;
    within(successor.campaign()).await;
    within(session.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_may_write_no_more_makes_way_and_a_refusal_that_passes_costs_nothing() {
    let etcd = Etcd::start().await;
    let (store, _session, leadership) = etcd.leading(LONG).await;
    let write = |n| store.commit(create(&pod("/a"), n));
    etcd.password("new horse").await;
    assert!(matches!(write(1).await, Outcome::Refused(_)));
    etcd.password("correct horse").await;
    assert!(tokio::time::timeout(Duration::from_secs(4), leadership.lost().cancelled()).await.is_err(), "it passed in time");
    commit(&store, create(&pod("/a"), 2)).await;
    etcd.password("new horse").await;
    assert!(matches!(write(3).await, Outcome::Refused(_)));
    within(leadership.lost().cancelled()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_may_only_read_any_more_makes_way_too() {
    let etcd = Etcd::start().await;
    let (store, _session, leadership) = etcd.leading(LONG).await;
    let mut auth = within(etcd.root()).await.auth_client();
    let read_only = Permission::new(PermissionType::Read, "/podium/").with_prefix();
    auth.role_grant_permission("podium", read_only).await.unwrap();
    assert!(matches!(store.commit(create(&pod("/a"), 1)).await, Outcome::Refused(_)));
    within(leadership.lost().cancelled()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_nothing_can_be_written_is_known_until_something_is() {
    let etcd = Etcd::start().await;
    let store = within(Store::connect(etcd.config())).await.unwrap();
    let write = |n| store.commit(create(&pod("/a"), n));
    commit(&store, create(&pod("/a"), 1)).await;
    assert_eq!(store.refusal(), None);
    let mut maintenance = within(etcd.root()).await.maintenance_client();
    // As when its disk quota is used up.
    maintenance.alarm(AlarmAction::Activate, AlarmType::Nospace, None).await.unwrap();
    assert!(matches!(write(2).await, Outcome::Refused(_)));
    assert!(store.refusal().is_some_and(|reason| reason.contains("space exceeded")), "{:?}", store.refusal());
    maintenance.alarm(AlarmAction::Deactivate, AlarmType::Nospace, None).await.unwrap();
    commit(&store, create(&pod("/a"), 2)).await;
    assert_eq!(store.refusal(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_let_in_is_told_why_and_no_password() {
    let etcd = Etcd::start().await;
    let wrong = etcd.refusal(|config| config.user = Some(("podium".to_owned(), "wrong horse".to_owned()))).await;
    assert!(matches!(wrong, StoreError::Refused(_)) && !wrong.to_string().contains("horse"), "{wrong}");
    let nobody = etcd.refusal(|config| config.user = None).await;
    assert!(matches!(nobody, StoreError::Refused(_)), "{nobody}");
    let elsewhere = etcd.refusal(|config| config.prefix = "/other".to_owned()).await;
    assert!(matches!(&elsewhere, StoreError::Refused(why) if why.contains("permission denied")), "{elsewhere}");
    let stranger = etcd.refusal(|config| config.tls.as_mut().unwrap().ca = Some(Authority::new().pem())).await;
    assert!(matches!(stranger, StoreError::Unavailable { .. }), "{stranger}");
    let unsigned = etcd.refusal(|config| config.tls.as_mut().unwrap().identity = None).await;
    assert!(matches!(unsigned, StoreError::Unavailable { .. }), "{unsigned}");
}
