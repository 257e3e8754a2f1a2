/**
 * The fence around an org that moves: a policy of row-level security on each table of the org. No
 * statement of a replica sees or writes the org's rows behind the fence, whichever pass or request
 * the statement belongs to. Without a move no policy exists, and the fence costs nothing.
 *
 * All tables are locked at once, so that a transaction ran either wholly before the fence, or
 * wholly behind it.
 */
import { createHash } from "node:crypto";
import pg from "pg";
import { lockGivingWay } from "../pg/give-way.ts";
import type { OrgTable } from "./tables.ts";

/** Tables that are still read behind a fence, and not written: they tell whose a credential is. */
const readable = ["org", "token", "join_code", "hook"];

/** Lets the statements of a connection pass the org's fence. */
export async function passFence(client: pg.ClientBase, orgId: string): Promise<void> {
  await client.query("select set_config('pinion.mover', $1, false)", [orgId]);
}

/** Puts up the fence, together with `note`, in one transaction. */
export function raiseFence(
  client: pg.ClientBase,
  { orgId, tables, note }: { orgId: string; tables: readonly OrgTable[]; note: () => Promise<void> },
): Promise<void> {
  return locked(client, tables, async () => {
    await dropPolicies(client, orgId, tables);
    for (const { name, key } of tables) await client.query(policiesOf({ orgId, name, key }));
    await note();
  });
}

/** Takes the fence down, together with `note`, in one transaction. */
export function lowerFence(
  client: pg.ClientBase,
  { orgId, tables, note }: { orgId: string; tables: readonly OrgTable[]; note: () => Promise<void> },
): Promise<void> {
  return locked(client, tables, async () => {
    await dropPolicies(client, orgId, tables);
    await note();
  });
}

/** The names that the policies of an org begin with; an org's id may be too long for a name. */
function policyName(orgId: string): string {
  return `org_move_${createHash("sha256").update(orgId).digest("hex").slice(0, 32)}`;
}

function policiesOf({ orgId, name, key }: { orgId: string; name: string; key: string }): string {
  const org = pg.escapeLiteral(orgId);
  const condition = `(${key} <> ${org} or (select current_setting('pinion.mover', true)) = ${org})`;
  const policy = (command: string, clause: string) =>
    `create policy ${policyName(orgId)}_${command} on ${pg.escapeIdentifier(name)} as restrictive for ${command} ${clause} ${condition}`;
  if (!readable.includes(name)) return policy("all", "using");
  return [policy("insert", "with check"), policy("update", "using"), policy("delete", "using")].join("; ");
}

async function dropPolicies(
  client: pg.ClientBase,
  orgId: string,
  tables: readonly OrgTable[],
): Promise<void> {
  const drops = tables.flatMap(({ name }) =>
    ["all", "insert", "update", "delete"].map(
      (command) => `drop policy if exists ${policyName(orgId)}_${command} on ${pg.escapeIdentifier(name)}`,
    ),
  );
  await client.query(drops.join("; "));
}

/**
 * In a transaction with all tables locked, for which no statement of a replica fails (give-way.ts).
 */
async function locked(
  client: pg.ClientBase,
  tables: readonly OrgTable[],
  fn: () => Promise<void>,
): Promise<void> {
  await client.query("begin");
  try {
    await client.query("set local client_min_messages = warning");
    const names = tables.map(({ name }) => name);
    await lockGivingWay((statement) => client.query(statement), new Map([["access exclusive", names]]));
    await fn();
    await client.query("commit");
  } catch (error) {
    await client.query("rollback");
    throw error;
  }
}
