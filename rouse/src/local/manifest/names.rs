//! The names that Kubernetes accepts.

use super::cursor::Cursor;
use super::error::ManifestError;

/// RFC 1123 label: what namespaces, Services, containers and ports' hosts are called.
pub(super) fn is_label(name: &str) -> bool {
    name.len() <= 63 && is_part(name)
}

fn is_part(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.bytes().all(allowed) && !name.starts_with('-') && !name.ends_with('-')
}

/// RFC 1123 subdomain, 253 characters at most: what Deployments and `ConfigMap`s are called. Kubernetes bounds the whole
/// and not each part between dots.
pub(super) fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_part)
}

/// The text at `cursor` as an RFC 1123 label.
pub(super) fn label<'a>(cursor: &Cursor<'a>) -> Result<&'a str, ManifestError> {
    cursor.text()?.filter(|name| is_label(name)).ok_or_else(|| {
        cursor.error("must be 1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends")
    })
}

/// The text at `cursor` as an RFC 1123 subdomain.
pub(super) fn subdomain<'a>(cursor: &Cursor<'a>) -> Result<&'a str, ManifestError> {
    cursor.text()?.filter(|name| is_subdomain(name)).ok_or_else(|| {
        cursor.error(
            "must be 1 to 253 lower-case letters, digits, hyphens and dots, with a letter or digit at both ends of \
             each part",
        )
    })
}

/// The namespace of an object, `default` if it names none.
pub(super) fn namespace<'a>(root: &Cursor<'a>) -> Result<&'a str, ManifestError> {
    let namespace = root.at(["metadata", "namespace"])?;
    if namespace.exists() {
        label(&namespace)
    } else {
        Ok("default")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        let long = "a".repeat(63);
        for name in ["a", "0", "sklearn-iris", &long] {
            assert!(is_label(name), "{name}");
        }
        let long = "a".repeat(64);
        for name in ["", "-a", "a-", "A", "a_b", "a.b", "ü", &long] {
            assert!(!is_label(name), "{name}");
        }
    }

    #[test]
    fn subdomains() {
        let long = "a".repeat(253);
        for name in ["a", "a.b", "model-v1.2", &long] {
            assert!(is_subdomain(name), "{name}");
        }
        let long = "a".repeat(254);
        for name in ["", ".", "a.", ".a", "a..b", "a.-b", "A", &long] {
            assert!(!is_subdomain(name), "{name}");
        }
    }
}
