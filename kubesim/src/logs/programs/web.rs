//! A web shop: Phoenix and nginx request lines, JSON events, coloured warnings and stack traces.

use rand::RngExt;
use rand::rngs::StdRng;

use super::random::{pick, request_id};

/// Returns the lines of one request, or of another event.
pub(super) fn burst(random: &mut StdRng, number: u64) -> Vec<String> {
    if number == 0 {
        return BOOT.iter().map(|line| (*line).to_owned()).collect();
    }
    match random.random_range(0..100) {
        0..55 => phoenix(random),
        55..80 => vec![nginx(random)],
        80..92 => vec![event(random)],
        92..98 => vec![warning(random)],
        _ => trace(random),
    }
}

fn phoenix(random: &mut StdRng) -> Vec<String> {
    let id = request_id(random);
    let (method, path) = route(random);
    let status = status(random);
    let millis = duration(random);
    vec![
        format!("request_id={id} [info] {method} {path}"),
        format!("request_id={id} [info] Sent {status} in {millis}ms"),
    ]
}

fn nginx(random: &mut StdRng) -> String {
    let (method, path) = route(random);
    let status = status(random);
    let bytes = random.random_range(180..48_000);
    let seconds = f64::from(duration(random)) / 1000.0;
    let agent = pick(random, AGENTS);
    let host = random.random_range(2..250);
    format!(
        "203.0.113.{host} - - \"{method} {path} HTTP/1.1\" {status} {bytes} \"-\" \"{agent}\" rt={seconds:.3} request_id={}",
        request_id(random)
    )
}

fn event(random: &mut StdRng) -> String {
    let order = random.random_range(10_000..99_999);
    let total = f64::from(random.random_range(490..25_000)) / 100.0;
    serde_json::json!({
        "level": "info",
        "event": pick(random, EVENTS),
        "order": order,
        "total": total,
        "currency": "EUR",
        "request_id": request_id(random),
    })
    .to_string()
}

fn warning(random: &mut StdRng) -> String {
    let millis = random.random_range(800..4_000);
    let table = pick(random, &["products", "orders", "carts", "customers"]);
    format!("\u{1b}[33m[warning]\u{1b}[0m slow query: {millis}ms SELECT * FROM {table} WHERE updated_at > $1")
}

fn trace(random: &mut StdRng) -> Vec<String> {
    let id = request_id(random);
    let (method, path) = route(random);
    let line = random.random_range(20..220);
    vec![
        format!("request_id={id} [info] {method} {path}"),
        format!(
            "request_id={id} \u{1b}[31m[error]\u{1b}[0m ** (DBConnection.ConnectionError) connection not available and request was dropped from queue after 2003ms"
        ),
        "    (ecto_sql 3.12.1) lib/ecto/adapters/sql.ex:1096: Ecto.Adapters.SQL.raise_sql_call_error/1".to_owned(),
        "    (ecto 3.12.5) lib/ecto/repo/queryable.ex:237: Ecto.Repo.Queryable.execute/4".to_owned(),
        format!("    (shop 2.8.0) lib/shop/catalog.ex:{line}: Shop.Catalog.list_products/1"),
        "    (shop 2.8.0) lib/shop_web/controllers/product_controller.ex:14: ShopWeb.ProductController.index/2"
            .to_owned(),
        "    (phoenix 1.7.18) lib/phoenix/router.ex:484: Phoenix.Router.__call__/5".to_owned(),
        format!(
            "request_id={id} [info] Sent 500 in {}ms",
            2003 + random.random_range(1..40)
        ),
    ]
}

fn route(random: &mut StdRng) -> (&'static str, String) {
    let id = random.random_range(1..4_000);
    match random.random_range(0..10) {
        0..3 => ("GET", "/".to_owned()),
        3..6 => ("GET", format!("/products/{id}")),
        6 => (
            "GET",
            format!(
                "/search?q={}",
                pick(random, &["lamp", "chair", "mug", "t%C3%A9", "desk"])
            ),
        ),
        7 => ("POST", "/cart/items".to_owned()),
        8 => ("GET", "/cart".to_owned()),
        _ => ("POST", "/checkout".to_owned()),
    }
}

fn status(random: &mut StdRng) -> u16 {
    match random.random_range(0..100) {
        0..86 => 200,
        86..92 => 302,
        92..95 => 304,
        95..98 => 404,
        98 => 422,
        _ => 503,
    }
}

fn duration(random: &mut StdRng) -> u32 {
    let base = random.random_range(2..60);
    if random.random_range(0..20) == 0 {
        base * 17
    } else {
        base
    }
}

/// Lines of the start-up: migrations, caches, listeners.
const BOOT: &[&str] = &[
    "[info] Starting release shop 4.18.0",
    "[info] Loaded runtime configuration from /app/releases/4.18.0/runtime.exs",
    "[info] Repo: connected to db.internal:5432, pool of 10",
    "[info] Migrations: 20260901101500 create_wishlists already up",
    "[info] Migrations: 20260917083012 add_index_orders_on_customer already up",
    "[info] Migrations: 20261004140755 add_currency_to_prices already up",
    "[info] == Running 20261119090210 Shop.Repo.Migrations.AddGiftNotes.change/0 forward",
    "[info] alter table order_lines",
    "[info] == Migrated 20261119090210 in 0.0s",
    "[info] Cache: warming products",
    "[info] Cache: warmed 2914 products in 212ms",
    "[info] Cache: warming prices",
    "[info] Cache: warmed 2914 prices in 35ms",
    "[info] Telemetry: exporting to otel.internal:4317",
    "[info] Oban: started with queues default 10, mail 5, search 2",
    "[info] Search: index is current, 2914 documents",
    "[info] PubSub: joined 2 nodes",
    "[info] Running ShopWeb.Endpoint with Bandit 1.6.1 at 0.0.0.0:4000 (http)",
    "[info] Access ShopWeb.Endpoint at https://shop.example.com",
    "[info] Health: ready",
];
const EVENTS: &[&str] = &[
    "order_placed",
    "payment_captured",
    "cart_abandoned",
    "coupon_used",
    "customer_signed_in",
];
const AGENTS: &[&str] = &[
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15",
    "curl/8.14.1",
];
