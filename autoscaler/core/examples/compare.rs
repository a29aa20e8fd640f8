use autoscaler_core::{ClusterConfig, annotations, sim};
fn main() {
    let seeds: u32 = std::env::args()
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(20);
    let mut all = vec![];
    for s in sim::standard() {
        let mut ann = s.annotations.clone();
        ann.insert("rouse.dev/min-stay".into(), "0s".into());
        let spec = annotations::parse(&ann, &ClusterConfig::default())
            .unwrap()
            .spec;
        let c = sim::Comparison::run(&s, &spec, seeds);
        println!(
            "{:40} cost {:6.3} held {:6.3} over {:6.3} peak {} {}",
            c.scenario,
            c.cost(),
            c.held(),
            c.over_target(),
            c.knative.peak_replicas,
            c.rouse.peak_replicas
        );
        all.push(c);
    }
    println!("{:?}", sim::Overall::of(&all));
}
