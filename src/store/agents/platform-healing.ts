import { sql } from "kysely";
import type { Keyring } from "../../secrets.ts";
import { type Db, transaction } from "../pg/database.ts";
import * as events from "../work/service/events.ts";

/** A key of a kind that is a secret in the current version. */
export type SecretKey = { kind: string; key: string };

/** Platforms per transaction. */
const healBatchMax = 200;

type Row = {
  org_id: string;
  stable_id: string;
  agent_id: string;
  config: Record<string, string>;
  secrets: Record<string, string>;
  version: number;
  keys: string[];
};

/**
 * Moves settings of platforms that are secrets in the current version (a webhook's address) to the
 * secrets, sealed, each platform with the event `platform.updated`. An existing secret of the same
 * key stays. Safe on all replicas at once and at every start. Without a key of the keyring nothing
 * can be sealed, and all settings stay; lists hide them in any case. Returns the number healed, and
 * the number left.
 */
export async function healSecretSettings(
  db: Db,
  options: { keyring: Keyring; secretKeys: readonly SecretKey[] },
): Promise<{ healed: number; left: number }> {
  if (options.keyring.currentKeyId === undefined) {
    return { healed: 0, left: (await find(db, options.secretKeys, Number.MAX_SAFE_INTEGER, false)).length };
  }
  for (let healed = 0; ; ) {
    const count = await transaction(db, async (tx) => {
      const rows = await find(tx, options.secretKeys, healBatchMax, true);
      for (const row of rows) await heal(tx, row, options.keyring);
      await events.appendAll(tx, rows.map(eventOf));
      return rows.length;
    });
    healed += count;
    if (count < healBatchMax) return { healed, left: 0 };
  }
}

async function find(
  db: Db,
  secretKeys: readonly SecretKey[],
  limit: number,
  isLocked: boolean,
): Promise<Row[]> {
  const kinds = secretKeys.map(({ kind }) => kind);
  const keys = secretKeys.map(({ key }) => key);
  const { rows } = await sql<Row>`
    select p.org_id, p.stable_id, p.agent_id, p.config, p.secrets, p.version,
      array(select k.key from unnest(${kinds}::text[], ${keys}::text[]) as k(kind, key)
        where k.kind = p.kind and p.config ? k.key order by k.key) as keys
    from platform p
    where exists (select from unnest(${kinds}::text[], ${keys}::text[]) as k(kind, key)
      where k.kind = p.kind and p.config ? k.key)
    order by p.org_id, p.stable_id limit ${limit}
    ${isLocked ? sql`for update of p` : sql``}`.execute(db);
  return rows;
}

async function heal(tx: Db, row: Row, keyring: Keyring): Promise<void> {
  const { org_id: orgId, stable_id: platformId, agent_id: agentId } = row;
  const secrets = { ...row.secrets };
  for (const key of row.keys) {
    secrets[key] ??= keyring.seal(row.config[key] ?? "", { orgId, agentId, platformId, field: key });
  }
  await sql`
    update platform set config = config - ${row.keys}::text[], secrets = ${JSON.stringify(secrets)}::jsonb,
      version = version + 1, updated_at = now()
    where org_id = ${orgId} and stable_id = ${platformId}`.execute(tx);
}

function eventOf(row: Row): events.NewEvent {
  return {
    orgId: row.org_id,
    kind: "platform.updated",
    actor: "pinion",
    data: {
      platform_id: row.stable_id,
      agent_id: row.agent_id,
      version: row.version + 1,
      changed: row.keys.flatMap((key) => [`config.${key}`, `secrets.${key}`]),
      reason: "what is a secret by now is encrypted",
    },
  };
}
