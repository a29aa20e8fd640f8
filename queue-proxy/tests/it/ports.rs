//! Several request ports, each with its model.

use crate::{
    model::{Model, text},
    raw::{Raw, get},
    rig::{UID, activator, config, ready, until},
};

#[tokio::test]
async fn each_port_leads_to_its_own_model_and_all_share_the_limit() {
    let http = Model::start(|_| async { text("http") }).await;
    let (admin, gate) = Model::gated().await;
    let proxy = ready(config(&[http.address, admin.address], 1)).await;
    let addresses = proxy.addresses();
    assert_eq!(addresses.len(), 2);
    assert_eq!(
        Raw::connect(addresses[0]).await.get("/").await.text(),
        "http"
    );
    let mut client = Raw::sent(addresses[1], get("/admin", "")).await;
    until("it to arrive", || admin.seen.count() == 1).await;
    let mut other = Raw::sent(addresses[0], get("/", "")).await;
    until("the other to wait", || proxy.stats().gauges() == (1, 1)).await;
    gate.add_permits(3);
    assert_eq!(client.answer().await.text(), "/admin");
    assert_eq!(other.answer().await.text(), "http");
    let mut lane = Raw::connect(activator(&proxy)).await;
    for (port, expected) in [(0, "http"), (1, "/")] {
        lane.send(get(
            "/",
            &format!("rouse-pod-uid: {UID}\r\nrouse-port: {port}\r\n"),
        ))
        .await;
        assert_eq!(lane.answer().await.text(), expected);
    }
}
