//! An upgraded connection: bytes both ways until both sides are done.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::body::Guard;
use crate::shutdown;

/// Joins two upgraded connections. `guard` (a slot, an in-flight count) lives until both directions have ended, or
/// until `cut` is triggered, which ends the tunnel at once.
pub fn join(
    client: OnUpgrade,
    upstream: OnUpgrade,
    guard: impl Guard + 'static,
    mut cut: shutdown::Rx,
) {
    tokio::spawn(async move {
        let tunnel = async {
            let (client, upstream) = tokio::try_join!(client, upstream)?;
            let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            copy_bidirectional(&mut client, &mut upstream).await?;
            Ok::<_, crate::BoxError>(())
        };
        tokio::select! {
            done = tunnel => {
                if let Err(error) = done {
                    tracing::debug!(%error, "Tunnel ended");
                }
            }
            () = cut.wait() => {}
        }
        drop(guard);
    });
}
