//! What is bound to a statement, before it is known which database it is for. Nothing is copied here.

use std::borrow::Cow;

/// A parameter.
#[derive(Debug)]
pub(in crate::store) enum Value<'q> {
    Number(Option<i64>),
    Truth(bool),
    Text(Option<Cow<'q, str>>),
    Bytes(Cow<'q, [u8]>),
}

macro_rules! values {
    ($($type:ty, $value:ident => $made:expr;)*) => {$(
        impl<'q> From<$type> for Value<'q> {
            fn from($value: $type) -> Value<'q> {
                $made
            }
        }
    )*};
}

values! {
    i64, number => Value::Number(Some(number));
    Option<i64>, number => Value::Number(number);
    bool, truth => Value::Truth(truth);
    &'q str, text => Value::Text(Some(Cow::Borrowed(text)));
    &'q String, text => Value::Text(Some(Cow::Borrowed(text)));
    String, text => Value::Text(Some(Cow::Owned(text)));
    Option<&'q str>, text => Value::Text(text.map(Cow::Borrowed));
    Option<String>, text => Value::Text(text.map(Cow::Owned));
    &'q [u8], bytes => Value::Bytes(Cow::Borrowed(bytes));
    &'q Vec<u8>, bytes => Value::Bytes(Cow::Borrowed(bytes));
    Vec<u8>, bytes => Value::Bytes(Cow::Owned(bytes));
}
