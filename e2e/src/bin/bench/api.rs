//! How the API bears readers and writers: statuses of many pods under load, and writes beside plain puts to the same store.

use std::path::Path;
use std::time::{Duration, Instant};

use http::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use podium_e2e::cluster::{Cluster, Form};
use podium_e2e::etcd;
use podium_e2e::process::memory;
use podium_http::{Client, ClientConfig, Method, Url};
use tokio::runtime::Runtime;

use crate::Options;
use crate::figure::{Figure, figure, mebibytes, median, millis};
use crate::pod::{marker, sleeping_pod};

/// Connections of the load.
const CONNECTIONS: usize = 10;

/// How long the load lasts.
const LOAD: Duration = Duration::from_secs(5);

/// Posts and puts that are compared.
const WRITES: usize = 200;

/// Pods that are there before and after the long creation.
const FEW: usize = 100;
const MANY: usize = 10_000;

/// As many as hold them all.
const AGENTS: usize = 200;

/// Engine and agents are simulated, so that what is measured is the API, the controllers and the store.
pub(crate) fn under_load(podium: &Path, _: &Options) -> Vec<Figure> {
    let cluster = Cluster::start_simulated(Form::Server, podium, AGENTS);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts");
    let api = Api::new(&cluster);
    let mut figures = Vec::new();

    runtime.block_on(api.fill(0..FEW));
    settle(&cluster);
    figures.extend(statuses_a_second(&runtime, &api));
    let early = Writes::measured(&runtime, &api, &cluster, FEW);
    figures.push(early.figure());

    runtime.block_on(api.fill(FEW + WRITES..1_000));
    settle(&cluster);
    let means: Vec<Duration> = (0..50).map(|_| runtime.block_on(api.timed(STATUSES)).whole).collect();
    let mean = means.iter().sum::<Duration>() / 50;
    let ping = runtime.block_on(api.timed("/ping")).whole;
    figures.push(
        figure("GET ::status of 1,000 pods, SIMULATED agents, mean of 50", millis(mean), "< 60 ms", beside_ping(ping)).ratio(mean, ping),
    );

    runtime.block_on(api.fill(1_000..MANY - WRITES));
    settle(&cluster);
    figures.push(Writes::measured(&runtime, &api, &cluster, MANY - WRITES).beside(&early));
    figures.extend(large_listing(&runtime, &api, &cluster));
    drop(cluster);
    figures.push(large_pod(&runtime, podium));
    figures
}

/// Path of the status of all pods.
const STATUSES: &str = "/v2/pods/::status";

/// The load of `CONNECTIONS` clients that ask as fast as they are answered.
fn statuses_a_second(runtime: &Runtime, api: &Api) -> Vec<Figure> {
    let (statuses, bytes) = runtime.block_on(api.load(STATUSES));
    let (pings, _) = runtime.block_on(api.load("/ping"));
    let what = format!("GET ::status of {FEW} pods, {CONNECTIONS} connections, no gzip, SIMULATED agents: answers a second");
    let beside = format!("GET /ping, likewise: {pings:.0} a second; an answer is {} KiB", bytes / 1024);
    let share = |rate: f64| Duration::from_secs_f64(1.0 / rate.max(1.0));
    vec![figure(what, format!("{statuses:.0}"), "> 1,600", beside).ratio(share(statuses), share(pings))]
}

/// What POST costs beside a plain put, medians.
struct Writes {
    post: Duration,
    put: Duration,
}

impl Writes {
    /// POST beside a put of the same size to the same store, in turn, each over one connection and alone: what the controllers
    /// write because of a POST is waited for, after puts as well, so that both find the machine in the same mood.
    fn measured(runtime: &Runtime, api: &Api, cluster: &Cluster, from: usize) -> Self {
        let bytes = sleeping_pod("/size", 1, &marker()).to_string().len();
        let mut store = runtime.block_on(etcd::Putter::connect(&cluster.endpoints.etcd));
        let (mut posts, mut puts) = (Vec::new(), Vec::new());
        for number in from..from + WRITES {
            posts.push(runtime.block_on(api.create(number)));
            settle(cluster);
            puts.push(runtime.block_on(store.put(bytes)));
            settle(cluster);
        }
        Self { post: median(posts), put: median(puts) }
    }

    fn figure(&self) -> Figure {
        let what = format!("POST of a pod, SIMULATED agents, each alone, median of {WRITES}");
        let beside = format!("a put of its size to the same store, in turn: {}", millis(self.put));
        figure(what, millis(self.post), "< 2 x", beside).ratio(self.post, self.put)
    }

    /// Of the last pods beside those of the first.
    fn beside(&self, early: &Self) -> Figure {
        let what = format!("POST of the {MANY}th pod, likewise");
        let beside = format!("of the {FEW}th: {}; a put, now {} and then {}", millis(early.post), millis(self.put), millis(early.put));
        figure(what, millis(self.post), "as the 100th", beside).ratio(self.post, early.post)
    }
}

fn large_listing(runtime: &Runtime, api: &Api, cluster: &Cluster) -> Vec<Figure> {
    let times: Vec<Timed> = (0..5).map(|_| runtime.block_on(api.timed(STATUSES))).collect();
    let ping = runtime.block_on(api.timed("/ping")).whole;
    let first = median(times.iter().map(|timed| timed.first_byte).collect());
    let whole = median(times.iter().map(|timed| timed.whole).collect());
    let size = times.first().map_or(0, |timed| timed.bytes) as u64;
    let what = format!("GET ::status of {MANY} pods, SIMULATED agents: first byte, median of 5");
    let beside = format!("the whole answer, {}: {}; {}", mebibytes(size), millis(whole), beside_ping(ping));
    let server = cluster.server.as_ref().map_or(0, |server| memory(server.id()));
    let engine = format!("the process of the simulated engine: {}", mebibytes(memory(cluster.dev.id())));
    vec![
        figure(what, millis(first), "< 100 ms", beside).ratio(first, ping),
        figure(format!("podium server with {MANY} pods, memory (API and controllers)"), mebibytes(server), "< 500 MB", engine),
    ]
}

/// The status of one large pod, each time after the end of one of its instances was ordered.
fn large_pod(runtime: &Runtime, podium: &Path) -> Figure {
    let cluster = Cluster::start_simulated(Form::Server, podium, AGENTS);
    cluster.api().create(&sleeping_pod("/large", MANY, &marker()));
    settle(&cluster);
    let api = Api::new(&cluster);
    let path = "/v2/pods/large::status";
    runtime.block_on(api.timed(path));
    let unchanged = runtime.block_on(api.timed(path)).first_byte;
    let status = cluster.api().get(path).json();
    let ids = status["instances"].as_array().into_iter().flatten().filter_map(|instance| instance["id"].as_str());
    let killed = |id: &str| cluster.api().call("DELETE", &format!("/v2/pods/large::instances/{id}"), None).status;
    let times: Vec<Timed> = ids
        .take(5)
        .map(|id| {
            assert_eq!(killed(id), 200, "{id} is to be killed");
            runtime.block_on(api.timed(path))
        })
        .collect();
    let first = median(times.iter().map(|timed| timed.first_byte).collect());
    let size = times.first().map_or(0, |timed| timed.bytes) as u64;
    let what =
        format!("GET ::status of a pod of {MANY} instances after a kill of one was ordered, SIMULATED agents: first byte, median of 5");
    let beside = format!("asked again before: {}; an answer is {}", millis(unchanged), mebibytes(size));
    figure(what, millis(first), "< 100 ms", beside).ratio(first, unchanged)
}

fn beside_ping(ping: Duration) -> String {
    format!("GET /ping: {}", millis(ping))
}

/// Waits until no deployment runs, over one connection.
fn settle(cluster: &Cluster) {
    cluster.api().deployed();
}

/// The API, asked as a program asks it.
struct Api {
    base: String,
    client: Client,
}

/// How long an answer took.
struct Timed {
    first_byte: Duration,
    whole: Duration,
    bytes: usize,
}

impl Api {
    fn new(cluster: &Cluster) -> Self {
        Self { base: cluster.endpoints.api.clone(), client: Self::client() }
    }

    fn client() -> Client {
        Client::new(ClientConfig { max_body: 1 << 30, ..ClientConfig::default() }).expect("no credentials to be refused")
    }

    fn url(&self, path: &str) -> Url {
        podium_http::parse_url(&format!("{}{path}", self.base)).expect("the API's address is a URL")
    }

    async fn timed(&self, path: &str) -> Timed {
        timed(&self.client, &self.url(path)).await
    }

    /// Creates a pod; how long the POST took.
    async fn create(&self, number: usize) -> Duration {
        let start = Instant::now();
        self.post(number).await;
        start.elapsed()
    }

    /// Creates pods, several at a time.
    async fn fill(&self, numbers: std::ops::Range<usize>) {
        let lanes = (0..CONNECTIONS).map(|lane| {
            let numbers = numbers.clone();
            async move {
                for number in numbers.skip(lane).step_by(CONNECTIONS) {
                    self.post(number).await;
                }
            }
        });
        futures_util::future::join_all(lanes).await;
    }

    async fn post(&self, number: usize) {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let body = sleeping_pod(&format!("/bench/pod-{number}"), 1, "A=b").to_string();
        let answer = self.client.request(Method::POST, &self.url("/v2/pods"), headers, body).await.expect("the API answers");
        let status = answer.status;
        let body = answer.bytes().await.expect("the API answers in full");
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
    }

    /// Answers a second, and the size of the last one.
    async fn load(&self, path: &str) -> (f64, usize) {
        let (url, start) = (self.url(path), Instant::now());
        let lanes = (0..CONNECTIONS).map(|_| {
            let url = url.clone();
            tokio::spawn(async move {
                let client = Self::client();
                let (mut answers, mut bytes) = (0_usize, 0);
                while start.elapsed() < LOAD {
                    bytes = timed(&client, &url).await.bytes;
                    answers += 1;
                }
                (answers, bytes)
            })
        });
        let lanes = futures_util::future::join_all(lanes).await;
        let seconds = start.elapsed().as_secs_f64();
        let lanes: Vec<(usize, usize)> = lanes.into_iter().map(|lane| lane.expect("no lane fails")).collect();
        (lanes.iter().map(|lane| lane.0).sum::<usize>() as f64 / seconds, lanes.first().map_or(0, |lane| lane.1))
    }
}

async fn timed(client: &Client, url: &Url) -> Timed {
    use futures_util::StreamExt as _;
    let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
    let start = Instant::now();
    let answer = client.request(Method::GET, url, headers, "").await.expect("the API answers");
    assert_eq!(answer.status, 200, "{url}");
    let mut body = answer.body;
    let mut bytes = body.next().await.map_or(0, |piece| piece.expect("the API answers in full").len());
    let first_byte = start.elapsed();
    while let Some(piece) = body.next().await {
        bytes += piece.expect("the API answers in full").len();
    }
    Timed { first_byte, whole: start.elapsed(), bytes }
}
