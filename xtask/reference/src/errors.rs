//! `errors.md`.

use shared::error::Row;

use crate::page::{code, section, start, table};

const TEXT: &str = "\
Every answer that Rouse gives by itself. What a model answers, errors included, passes unchanged.

The body is one line of text, `rouse: CODE: TEXT`. Codes are stable: they are also the label `outcome` of the
[request counters](metrics.md). The origin says whose doing it was: the client's, the model's or its pod's (`upstream`), or
Rouse's own limits (`rouse`).

With `rouse.dev/openai-errors: \"true\"`, where the path begins with `/v1/`, the body is JSON in OpenAI's form instead, with the same
status and `Retry-After`: `{\"error\":{\"message\":\"TEXT\",\"type\":\"server_error\",\"param\":null,\"code\":\"CODE\"}}`, with
`invalid_request_error` as the type where the status is 400 to 499. What is refused before it is a request has no path that could
be relied on, so it is always text.

After the first byte of an answer there is no status left to send: the connection is broken
off, so that the client sees a broken transfer and not a short success.";

const MALFORMED: &str = "\
Both programs refuse these before anything of them reaches a model, and close the connection. The text says what is wrong
and quotes nothing that the client sent.";

/// What the reader of heads refuses, by status.
const STATUSES: [(&str, &str); 7] = [
    (
        "400",
        "ambiguous or malformed framing, request line, field, Host or WebSocket handshake",
    ),
    ("405", "CONNECT and TRACE"),
    (
        "408",
        "a head that is not complete within 30 s of its first byte",
    ),
    ("414", "a request line of more than 8 KiB"),
    ("417", "an Expect other than 100-continue"),
    (
        "431",
        "a head of more than 16 KiB or 100 fields, trailers likewise",
    ),
    ("505", "an HTTP version other than 1.0, 1.1 and 2"),
];

const ACTIVATOR: &str = "\
What a client of the activator can get; in local mode that is every client. In local mode the body of `cannot-start` also
has the reason and the last lines that the model wrote to standard error. On a cluster it has Kubernetes' word for the
reason, such as `ImagePullBackOff`; what Kubernetes says with it may name images and quotas and is only in
[Events](events.md) and logs. `rouse-activator` with its pods given by flags never says more than the text.";

const QUEUE_PROXY: &str = "\
What a client of a queue-proxy's own ports can get, and what an activator is told beside it in `rouse-admission`. An
activator sends what is not `admitted` to another pod or holds it, so a client behind an activator does not see those rows;
of the rows that are `admitted` it sees the status and the body.";

const FULL: &str = "\
A listener with 10,000 open connections answers further ones 503 and closes them, without a body of the form above. So do those of
an activator whose workloads have `--max-connections` all together, tunnels included. One workload gets no more of them than are
still free, so that a flood of one (half of all, at most) leaves room for the others; the same holds for `--max-held-total`
(`holds-full`).";

pub(crate) fn page() -> String {
    let mut page = start("Errors", TEXT);
    section(&mut page, "Malformed requests", MALFORMED);
    let rows = STATUSES.map(|(status, when)| [status.to_owned(), when.to_owned()]);
    table(&mut page, ["Status", "When"], rows);
    section(&mut page, "Activator", ACTIVATOR);
    let rows = activator::contract();
    table(
        &mut page,
        ["Status", "Code", "Text", "Origin", "Retry-After"],
        rows.iter().map(common),
    );
    section(&mut page, "Queue-proxy", QUEUE_PROXY);
    let rows = queue_proxy::contract();
    let rows = rows.iter().map(|row| {
        let [status, name, text, origin, retry] = common(row);
        let admission = row.admission.map_or_else(nothing, code);
        [status, name, text, origin, retry, admission]
    });
    table(
        &mut page,
        [
            "Status",
            "Code",
            "Text",
            "Origin",
            "Retry-After",
            "rouse-admission",
        ],
        rows,
    );
    section(&mut page, "Too many connections", FULL);
    page
}

fn common(row: &Row) -> [String; 5] {
    [
        row.status
            .map_or_else(|| "see above".to_owned(), |status| status.to_string()),
        code(row.code),
        match row.text {
            "" => "what is wrong".to_owned(),
            text => text.to_owned(),
        },
        code(row.origin.as_str()),
        row.retry_after.map_or_else(nothing, str::to_owned),
    ]
}

fn nothing() -> String {
    "-".to_owned()
}
