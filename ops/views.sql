-- What an analyst asks for most, made of the views that there are of each class of events.
-- Money is in minor units of its currency; times are when it happened, unless they say otherwise.

CREATE VIEW orders AS
WITH confirmed AS (SELECT order_id, min(occurred_at) AS at FROM OrderConfirmed GROUP BY order_id),
    shipped AS (SELECT order_id, min(occurred_at) AS at FROM OrderShipped GROUP BY order_id),
    completed AS (SELECT order_id, min(occurred_at) AS at FROM OrderCompleted GROUP BY order_id),
    settled AS (SELECT DISTINCT order_id FROM OrderSettled),
    captured AS (SELECT order_id, sum(amount)::BIGINT AS amount FROM OrderCaptured GROUP BY order_id),
    returned AS (SELECT order_id, sum(amount)::BIGINT AS amount FROM OrderMoneyReturned WHERE verb = 'refund' GROUP BY order_id),
    ended AS (
        SELECT order_id, occurred_at AS at, 'rejected' AS status, reason FROM OrderRejected
        UNION ALL SELECT order_id, occurred_at, 'cancelled', reason FROM OrderCancelled
    )
SELECT
    placed.order_id, placed.cart_id, placed.owner, placed.payment_id, placed.currency, placed.amount,
    coalesce(ended.status,
        CASE WHEN completed.at IS NOT NULL THEN 'completed' WHEN confirmed.at IS NOT NULL THEN 'confirmed' ELSE 'placed' END
    ) AS status,
    ended.reason,
    len(placed.lines) AS line_count,
    coalesce(list_sum([line.quantity FOR line IN placed.lines]), 0)::BIGINT AS units,
    coalesce(captured.amount, 0) AS captured,
    coalesce(returned.amount, 0) AS returned,
    placed.occurred_at AS placed_at,
    confirmed.at AS confirmed_at, shipped.at AS shipped_at, completed.at AS completed_at, ended.at AS ended_at,
    settled.order_id IS NOT NULL AS settled,
    placed.lines
FROM OrderPlaced AS placed
LEFT JOIN confirmed USING (order_id) LEFT JOIN shipped USING (order_id) LEFT JOIN completed USING (order_id)
LEFT JOIN settled USING (order_id) LEFT JOIN captured USING (order_id) LEFT JOIN returned USING (order_id)
LEFT JOIN ended USING (order_id);

-- Every event of a stock item, with what it changed and the balances after it. Sums of the changes are the balances.
CREATE VIEW stock_movements AS
WITH told AS (
    SELECT 'StockItemRegistered' AS type, * FROM StockItemRegistered
    UNION ALL BY NAME SELECT 'StockReceived' AS type, *, quantity AS sellable_change FROM StockReceived
    UNION ALL BY NAME SELECT 'StockPolicyChanged' AS type, * FROM StockPolicyChanged
    UNION ALL BY NAME SELECT 'StockAdjusted' AS type, *, after - before AS sellable_change FROM StockAdjusted
    UNION ALL BY NAME SELECT 'StockShortfallFound' AS type, * FROM StockShortfallFound
    UNION ALL BY NAME SELECT 'StockReserved' AS type, *, quantity AS reserved_change FROM StockReserved
    UNION ALL BY NAME SELECT 'StockReservationRefused' AS type, * FROM StockReservationRefused
    UNION ALL BY NAME SELECT 'StockReservationReleased' AS type, *, -quantity AS reserved_change FROM StockReservationReleased
    UNION ALL BY NAME SELECT 'StockReservationExpired' AS type, *, -quantity AS reserved_change FROM StockReservationExpired
    UNION ALL BY NAME SELECT 'StockAllocated' AS type, *, -from_reserved AS reserved_change, quantity AS allocated_change FROM StockAllocated
    UNION ALL BY NAME SELECT 'StockAllocationRefused' AS type, * FROM StockAllocationRefused
    UNION ALL BY NAME SELECT 'StockAllocationReleased' AS type, *, -quantity AS allocated_change FROM StockAllocationReleased
    UNION ALL BY NAME SELECT 'StockShipped' AS type, *, -quantity AS sellable_change, -quantity AS allocated_change, quantity AS shipped_change FROM StockShipped
    UNION ALL BY NAME SELECT 'StockShipmentRefused' AS type, * FROM StockShipmentRefused
    UNION ALL BY NAME SELECT 'StockDepleted' AS type, * FROM StockDepleted
    UNION ALL BY NAME SELECT 'StockReplenished' AS type, * FROM StockReplenished
    UNION ALL BY NAME SELECT 'LowStockReached' AS type, * FROM LowStockReached
)
SELECT
    sku, location, version, type, occurred_at, recorded_at, quantity,
    coalesce(sellable_change, 0) AS sellable_change, coalesce(reserved_change, 0) AS reserved_change,
    coalesce(allocated_change, 0) AS allocated_change, coalesce(shipped_change, 0) AS shipped_change,
    sellable, reserved, allocated, shipped,
    reason, note, document, order_id, line, actor_kind, actor_id, event_id, command_id, correlation_id, causation_id
FROM told;

CREATE VIEW payments AS
WITH told AS (
    SELECT payment_id, order_id, currency, occurred_at, 'asked' AS what, amount, NULL AS code FROM PaymentAuthorizationRequested
    UNION ALL SELECT payment_id, order_id, currency, occurred_at, 'authorized', amount, NULL FROM PaymentAuthorized
    UNION ALL SELECT payment_id, order_id, currency, occurred_at, 'captured', amount, NULL FROM PaymentCaptured
    UNION ALL SELECT payment_id, order_id, currency, occurred_at, 'voided', amount, NULL FROM PaymentVoided
    UNION ALL SELECT payment_id, order_id, currency, occurred_at, 'refunded', amount, NULL FROM PaymentRefunded
    UNION ALL SELECT payment_id, order_id, currency, occurred_at, 'declined', 0, code FROM PaymentDeclined
    UNION ALL SELECT payment_id, order_id, currency, occurred_at, 'unknown', 0, NULL FROM PaymentUnknown
)
SELECT
    payment_id, any_value(order_id) AS order_id, any_value(currency) AS currency,
    coalesce(sum(amount) FILTER (what = 'asked'), 0)::BIGINT AS asked,
    coalesce(sum(amount) FILTER (what = 'authorized'), 0)::BIGINT AS authorized,
    coalesce(sum(amount) FILTER (what = 'captured'), 0)::BIGINT AS captured,
    coalesce(sum(amount) FILTER (what = 'voided'), 0)::BIGINT AS voided,
    coalesce(sum(amount) FILTER (what = 'refunded'), 0)::BIGINT AS refunded,
    any_value(code) AS declined_with,
    count(*) FILTER (what = 'unknown') AS unknown_answers,
    min(occurred_at) AS first_at, max(occurred_at) AS last_at
FROM told GROUP BY payment_id;
