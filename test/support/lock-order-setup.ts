/**
 * Fails a test in which a transaction of this process locked tables in a wrong order
 * (lock-order.ts).
 */
import { afterEach } from "vitest";
import { lockOrder, requireOrder } from "./lock-order.ts";

lockOrder();
afterEach(() => requireOrder());
