//! Several request ports, several workloads.

use crate::{
    bed::{Bed, Pod, loopback},
    http1::{Raw, ask, get},
    model::Model,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_port_of_a_workload_reaches_the_same_port_of_its_pods() {
    let bed = Bed::new();
    let site = bed.site_with_ports("a", 3, |_| {});
    let others = [Model::start("second"), Model::start("third")];
    let pod = Pod::with("first", 0, |c| {
        for model in &others {
            c.ports.push(queue_proxy::config::Port {
                listen: loopback(),
                upstream: model.address,
            });
        }
    });
    site.pods(&[&pod]);
    for (address, name) in site.addresses.iter().zip(["first", "second", "third"]) {
        let answer = ask(*address, get("/", name)).await;
        assert_eq!((answer.status, answer.header("x-model")), (200, Some(name)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_the_pod_does_not_have_keeps_the_request_until_its_time_is_over() {
    let bed = Bed::new();
    let site = bed.site_with_ports("a", 2, |c| {
        c.max_cold_start = std::time::Duration::from_millis(500);
    });
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    assert_eq!(ask(site.addresses[1], get("/", "x")).await.status, 504);
    assert_eq!(ask(site.addresses[0], get("/", "y")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_client_that_names_no_host_is_served_and_its_connection_ends() {
    let bed = Bed::new();
    let site = bed.site("a", |_| {});
    let mut raw = Raw::sent(site.address(), "GET / HTTP/1.0\r\nx-id: old\r\n\r\n").await;
    site.holds(1).await;
    let pod = Pod::start("p", 0);
    site.pods(&[&pod]);
    assert_eq!(raw.answer().await.unwrap().status, 200);
    assert!(raw.ends().await);
    assert_eq!(pod.model.ids(), ["old"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_says_which_workload_is_meant_and_no_header_does() {
    let bed = Bed::new();
    let (a, b) = (bed.site("a", |_| {}), bed.site("b", |_| {}));
    let (pod_a, pod_b) = (Pod::start("a", 0), Pod::start("b", 0));
    a.pods(&[&pod_a]);
    b.pods(&[&pod_b]);
    let request = get("/", "x").replace("host: t", "host: b\r\nrouse-pod-uid: b\r\nrouse-port: 0");
    assert_eq!(ask(a.address(), request).await.header("x-model"), Some("a"));
    bed.activator.remove(a.workload.id());
    assert_eq!(
        ask(b.address(), get("/", "y")).await.header("x-model"),
        Some("b")
    );
}
