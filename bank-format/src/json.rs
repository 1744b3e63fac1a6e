//! JSON that cannot be read in two ways: no duplicate keys, no fractions, no trailing bytes.
//!
//! Used where bytes are signed (TUF metadata) or decide a boot (the record). Nesting is bounded by `serde_json`.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize as _,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without fractions and without a key twice")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, Strict(value))) = access.next_entry::<String, Strict>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("key {key:?} stands twice")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// Reads strict JSON.
pub fn parse(structure: &'static str, bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice::<Strict>(bytes)
        .map(|Strict(value)| value)
        .map_err(|source| Error::Json { structure, source })
}

/// Canonical JSON (OLPC), the bytes that TUF signs.
pub fn canonical(structure: &'static str, value: &Value) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut serializer =
        serde_json::Serializer::with_formatter(&mut bytes, olpc_cjson::CanonicalFormatter::new());
    value
        .serialize(&mut serializer)
        .map_err(|source| Error::Encode { structure, source: Box::new(source) })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_keys_fractions_and_deep_nesting_are_refused() {
        for bad in [r#"{"a":1,"a":2}"#, "1.5", "1e3", "[1,2", "{} {}", "18446744073709551616", ""] {
            assert!(parse("sample", bad.as_bytes()).is_err(), "{bad}");
        }
        let deep = "[".repeat(100_000);
        assert!(parse("sample", deep.as_bytes()).is_err());
    }

    #[test]
    fn canonical_form_sorts_keys_and_drops_blanks() {
        let value = parse("sample", br#"{ "b": [1, true, null], "a": "x\"y" }"#).unwrap();
        assert_eq!(canonical("sample", &value).unwrap(), br#"{"a":"x\"y","b":[1,true,null]}"#);
    }
}
