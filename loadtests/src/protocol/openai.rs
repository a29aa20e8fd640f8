//! What the events of chat completions and completions say, in the form of OpenAI's API
//! (<https://platform.openai.com/docs/api-reference/chat-streaming>), which vLLM, KServe and others share.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

/// What an event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Text that the model has made.
    Token,
    /// Something else, such as the role or the usage.
    Other,
    /// `[DONE]`: nothing follows.
    Done,
    /// An error, in its words.
    Error(String),
    /// It is no JSON object.
    Unreadable,
}

/// What an event with this data is.
pub(crate) fn read(data: &[u8]) -> Said {
    if data.trim_ascii() == b"[DONE]" {
        return Said::Done;
    }
    let Ok(chunk) = serde_json::from_slice::<Chunk>(data) else {
        return Said::Unreadable;
    };
    if let Some(error) = chunk.error {
        return Said::Error(words(&error));
    }
    let mut choices = chunk.choices.iter().flatten();
    if choices.any(Choice::has_text) {
        Said::Token
    } else {
        Said::Other
    }
}

/// What an event of the type `error` complains of.
pub(crate) fn complaint(data: &[u8]) -> String {
    match serde_json::from_slice::<Value>(data) {
        Ok(value) => words(value.get("error").unwrap_or(&value)),
        Err(_) => String::from_utf8_lossy(data).into_owned(),
    }
}

/// An error in short: its message, or else its code. What else there is may be of the request, which is nobody's business.
fn words(error: &Value) -> String {
    if let Value::String(message) = error {
        return message.clone();
    }
    let field = |name| error.get(name).filter(|value| !value.is_null());
    match (
        field("message").and_then(Value::as_str),
        field("code").or_else(|| field("type")),
    ) {
        (Some(message), _) => message.to_owned(),
        (None, Some(Value::String(code))) => code.clone(),
        (None, Some(Value::Number(code))) => code.to_string(),
        (None, _) => "an error without a message".to_owned(),
    }
}

#[derive(Deserialize)]
struct Chunk {
    error: Option<Value>,
    choices: Option<Vec<Choice>>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Delta>,
    /// Of completions that are no chat.
    #[serde(default)]
    text: Filled,
}

#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    content: Filled,
    /// Of models that think first, in vLLM's and in newer words.
    #[serde(default)]
    reasoning_content: Filled,
    #[serde(default)]
    reasoning: Filled,
}

impl Choice {
    fn has_text(&self) -> bool {
        let delta = self.delta.as_ref();
        let has_delta = |d: &Delta| d.content.0 || d.reasoning_content.0 || d.reasoning.0;
        self.text.0 || delta.is_some_and(has_delta)
    }
}

/// Whether a value is text that is not empty. The text itself is not kept.
#[derive(Clone, Copy, Default)]
struct Filled(bool);

impl<'de> Deserialize<'de> for Filled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Look)
    }
}

struct Look;

impl<'de> Visitor<'de> for Look {
    type Value = Filled;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_str<E>(self, text: &str) -> Result<Filled, E> {
        Ok(Filled(!text.is_empty()))
    }

    fn visit_unit<E>(self) -> Result<Filled, E> {
        Ok(Filled(false))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Filled, E> {
        Ok(Filled(false))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Filled, E> {
        Ok(Filled(false))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Filled, E> {
        Ok(Filled(false))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Filled, E> {
        Ok(Filled(false))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Filled, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Filled(false))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Filled, A::Error> {
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Filled(false))
    }
}

#[cfg(test)]
mod tests {
    use super::{Said, complaint, read};

    #[test]
    fn of_an_error_only_what_it_is_is_kept() {
        for (data, want) in [
            (
                r#"{"message":"too long","prompt":"secret","code":400}"#,
                "too long",
            ),
            (r#"{"error":{"message":"too long","x":1}}"#, "too long"),
            (r#"{"error":"too long"}"#, "too long"),
            (r#"{"code":503,"prompt":"secret"}"#, "503"),
            (r#"{"message":null,"type":"overloaded"}"#, "overloaded"),
            (r#"{"prompt":"secret"}"#, "an error without a message"),
            ("[1]", "an error without a message"),
            ("out of memory", "out of memory"),
        ] {
            assert_eq!(complaint(data.as_bytes()), want, "{data}");
        }
    }

    #[test]
    fn tokens_are_told_from_what_else_is_said() {
        for (data, want) in [
            (
                r#"{"choices":[{"index":0,"delta":{"content":"Hi"}}]}"#,
                Said::Token,
            ),
            (
                r#"{"choices":[{"delta":{"role":"assistant"}}]}"#,
                Said::Other,
            ),
            (
                r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#,
                Said::Other,
            ),
            (
                r#"{"choices":[{"delta":{"content":null,"reasoning_content":"Hm"}}]}"#,
                Said::Token,
            ),
            (r#"{"choices":[{"delta":{"reasoning":"Hm"}}]}"#, Said::Token),
            (
                r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
                Said::Other,
            ),
            (
                r#"{"choices":[{"text":"Hi","index":0}],"usage":null}"#,
                Said::Token,
            ),
            (r#"{"choices":[{"text":""},{"text":"Hi"}]}"#, Said::Token),
            (
                r#"{"choices":[{"delta":{"content":[{"type":"x"}]}}],"error":null}"#,
                Said::Other,
            ),
            (
                r#"{"choices":[{"delta":{"content":{"a":[1,-1,1.5,true]}}}]}"#,
                Said::Other,
            ),
            (
                r#"{"choices":[],"usage":{"completion_tokens":9}}"#,
                Said::Other,
            ),
            (r#"{"choices":null}"#, Said::Other),
            (
                r#"{"error":{"message":"too long","code":400}}"#,
                Said::Error("too long".into()),
            ),
            (
                r#"{"error":"out of memory"}"#,
                Said::Error("out of memory".into()),
            ),
            (
                r#"{"error":{"prompt":"secret"}}"#,
                Said::Error("an error without a message".into()),
            ),
            ("[DONE]", Said::Done),
            (" [DONE] ", Said::Done),
            ("DONE", Said::Unreadable),
            ("[1]", Said::Unreadable),
            ("", Said::Unreadable),
        ] {
            assert_eq!(read(data.as_bytes()), want, "{data}");
        }
    }
}
