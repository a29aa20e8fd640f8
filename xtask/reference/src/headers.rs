//! `headers.md`.

use shared::headers::described;

use crate::page::{code, section, start, table};

const TEXT: &str = "\
Headers of Rouse's own. All begin with `rouse-`. They are removed from what clients send and from what models answer, at
both hops, before anything reads them: none carries trust. Only `rouse-timing` reaches a client.";

const OTHERS: &str = "\
- `X-Forwarded-For`, `X-Forwarded-Host`, `X-Forwarded-Proto`: set from the connection. What a client says in them or in
  `Forwarded` is dropped, unless the peer is in `--trusted-proxies`: then `X-Forwarded-For` is added to and the others are kept.
  They decide nothing.
- Hop-by-hop fields (`Connection` and what it names, `Keep-Alive`, `TE`, `Transfer-Encoding`, `Upgrade`,
  `Proxy-Connection`, ...) end at each hop. A proper WebSocket upgrade is made anew; other upgrades are left out.
- `Expect: 100-continue`: the client is told to continue when a pod has admitted the request, not before.
- `Retry-After`: see [errors](errors.md).
- `Server-Timing`: an answer of the model gets one more entry, `hold;dur=MS` from an activator, or `queue;dur=MS` from a
  queue-proxy that a client reaches directly; what the model has in it stays. It is what the developer tools of browsers show;
  scripts of another origin see it only if the model sends `Timing-Allow-Origin`. `rouse-timing` has more, and is the one to rely
  on.
- `traceparent`, `tracestate` (W3C Trace Context): passed on byte for byte if they are well formed. A `traceparent` that is not, or
  that is there twice, is removed together with `tracestate`; so is a `tracestate` that has no `traceparent`, that is malformed, or
  that has more than 32 members or 512 bytes. `baggage`, `b3`, `x-request-id` and the like pass untouched. See
  [logs and traces](../guides/logs-and-traces.md).";

pub(crate) fn page() -> String {
    let mut page = start("Headers", TEXT);
    let rows = described().into_iter().map(|header| {
        [
            code(header.name.as_str()),
            header.way.to_owned(),
            header.value.to_owned(),
            header.meaning.to_owned(),
        ]
    });
    table(&mut page, ["Header", "Way", "Value", "Meaning"], rows);
    section(&mut page, "Others that are touched", OTHERS);
    page
}
