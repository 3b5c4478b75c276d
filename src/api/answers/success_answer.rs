//! Answers of the calls that clients of the five systems make: whether the call was answered, and the answer.

use serde::Serialize;
use utoipa::PartialSchema;
use utoipa::ToSchema;
use utoipa::openapi::Ref;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::ArrayBuilder;
use utoipa::openapi::schema::ArrayItems;
use utoipa::openapi::schema::ObjectBuilder;
use utoipa::openapi::schema::Schema;

/// One answer.
#[derive(Debug, Serialize)]
pub(crate) struct SuccessAnswer<T> {
    success: bool,
    data: T,
}

/// A list of answers.
#[derive(Debug, Serialize)]
pub(crate) struct SuccessList<T> {
    success: bool,
    data: Vec<T>,
}

impl<T> SuccessAnswer<T> {
    pub(crate) fn of(data: T) -> Self {
        Self { success: true, data }
    }
}

impl<T> SuccessList<T> {
    pub(crate) fn of(data: Vec<T>) -> Self {
        Self { success: true, data }
    }
}

impl<T: ToSchema> PartialSchema for SuccessAnswer<T> {
    fn schema() -> RefOr<Schema> {
        answer_schema(RefOr::Ref(Ref::from_schema_name(T::name())))
    }
}

impl<T: ToSchema> ToSchema for SuccessAnswer<T> {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}

impl<T: ToSchema> PartialSchema for SuccessList<T> {
    fn schema() -> RefOr<Schema> {
        let item = RefOr::Ref(Ref::from_schema_name(T::name()));
        let items = ArrayItems::RefOrSchema(Box::new(item));
        answer_schema(ArrayBuilder::new().items(items).into())
    }
}

impl<T: ToSchema> ToSchema for SuccessList<T> {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}

fn answer_schema(data: RefOr<Schema>) -> RefOr<Schema> {
    let answer = ObjectBuilder::new().property("success", bool::schema()).property("data", data);
    answer.required("success").required("data").into()
}
