//! Endpoints with a payload of their own: one event, several bodies, one set of books.

use std::collections::BTreeSet;

use crate::support::postgres::Database;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const ROWS: usize = 300;

fn ids(requests: &[Request]) -> BTreeSet<String> {
    requests.iter().map(|request| request.header("webhook-id").to_owned()).collect()
}

#[tokio::test]
async fn each_endpoint_gets_its_own_shape_of_the_same_events_within_the_memory_budget() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE notes (id int PRIMARY KEY, text text NOT NULL)").await.unwrap();
    let [own, cloud, plain] = [(); 3].map(|()| Receiver::start(always(Answer::status(200))));
    // Three bodies of 20 kB each for an event, and room for a few events at once.
    let rest = format!(
        "[memory]\nqueued = \"1MiB\"\n\n\
         [[event]]\ntype = \"note\"\ntable = \"public.notes\"\n\n\
         [[endpoint]]\nname = \"own\"\nurl = \"{}\"\n\n\
         [[endpoint]]\nname = \"cloud\"\nurl = \"{}\"\npayload = \"cloudevents\"\n\n\
         [[endpoint]]\nname = \"plain\"\nurl = \"{}\"\nwhen = \"id != 1\"\n\
         payload = \"{{{{ id }}}}: {{{{ text }}}}\"\ncontent_type = \"text/markdown\"\n",
        own.url(),
        cloud.url(),
        plain.url()
    );
    let mut service = Service::start(&configuration(&database, &rest)).await;
    let insert =
        format!("INSERT INTO notes SELECT n, repeat('é', 10000) FROM generate_series(1, {ROWS}) n");
    sql.batch_execute(&insert).await.unwrap();
    let (own, cloud) = (own.wait_for(ROWS, AMPLE).await, cloud.wait_for(ROWS, AMPLE).await);
    let plain = plain.wait_for(ROWS - 1, AMPLE).await;

    assert_eq!(ids(&own), ids(&cloud), "an event keeps its id in every shape");
    assert!(ids(&own).is_superset(&ids(&plain)));
    assert!(own.iter().all(|request| request.json()["type"] == "note"));
    for request in &cloud {
        let event = request.json();
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["id"], request.header("webhook-id"));
        assert_eq!(request.header("content-type"), "application/cloudevents+json; charset=utf-8");
    }
    let of_2 = plain.iter().find(|request| request.body.starts_with(b"2: ")).unwrap();
    assert_eq!(of_2.body.len(), 3 + 20_000);
    assert_eq!(of_2.header("content-type"), "text/markdown");
    for (endpoint, delivered) in [("own", 300.0), ("cloud", 300.0), ("plain", 299.0)] {
        let series = |outcome| {
            format!("walhook_deliveries_total{{endpoint=\"{endpoint}\",outcome=\"{outcome}\"}}")
        };
        service.wait_for_metric(&series("delivered"), delivered).await;
        service.wait_for_metric(&series("filtered"), 300.0 - delivered).await;
    }
    service.stop().await;
}
