//! `request-log.md`.

use shared::record::FIELDS;

use crate::page::{code, section, start, table};

const TEXT: &str = "\
`--request-log` of [`rouse-queue-proxy`](flags-rouse-queue-proxy.md) and [`rouse-activator`](flags-rouse-activator.md) writes one
line about each request to standard output. There is none by default; on a cluster the annotation `rouse.dev/request-log` of a workload's
pod template asks its sidecars for one. [How to use it](../guides/logs-and-traces.md).

The line is written when the answer has ended: with its last byte, when it is cut, or when its client is gone; of a WebSocket when
both sides are done. What is refused has one too, also if it was never a request, and so has each attempt of an activator that a pod
does not admit, at that pod. What an activator asks of a pod itself (`rouse-op`) is no request and has none. On HTTP/2, a head that
breaks the protocol ends its stream before it is a request, and has none either.";

const FORMS: &str = "\
- `json`: an object with every field, in this order; what there is none of is `null`. The line is ASCII: all else is escaped as
  `\\uHHHH`. Bytes that are no UTF-8 become U+FFFD.
- A template: fields in braces, such as `{method} \"{path}\" {status} {duration_ms}`; `{{` and `}}` are braces. What there is none of
  is `-`. Of what comes from outside, quotation marks, backslashes and all bytes but printable ASCII are `\\xHH`, so that what stands
  between quotation marks stays there.

Names, meanings and the two forms are stable; fields may be added. Times are in milliseconds with three decimals.";

const LOST: &str = "\
Requests never wait for the log. Up to 4,096 lines wait to be written; what comes while there is no room, or cannot be written, is left
out and counted in `rouse_queue_proxy_request_log_dropped_total` and `rouse_activator_request_log_dropped_total`
([metrics](metrics.md)). At the end of the program the last lines get one second.";

pub(crate) fn page() -> String {
    let mut page = start("Request log", TEXT);
    section(&mut page, "Fields", "");
    let rows = FIELDS.iter().map(|field| {
        [
            code(field.name),
            field.kind.to_owned(),
            field.meaning.to_owned(),
        ]
    });
    table(&mut page, ["Field", "In JSON", "Meaning"], rows);
    section(&mut page, "Forms", FORMS);
    section(&mut page, "What is left out", LOST);
    page
}
