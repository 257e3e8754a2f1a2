/**
 * The secrets of platforms: sealed when they are written, and sealed anew when a key is rotated.
 */
import { sql } from "kysely";
import { type Keyring, sealWanted } from "../../secrets.ts";
import { beginRotation, type Rotated } from "../people/orgs/secret-rotation.ts";
import type { Db } from "../pg/database.ts";
import { transaction } from "../pg/database.ts";
import type { Json } from "../pg/schema/schema-columns.ts";
import type { Named, Platform, PlatformValues } from "./platforms.ts";

/** The secrets as stored. */
export function sealAll(
  options: Named & { values: PlatformValues; keyring: Keyring },
  current: Platform | undefined,
): Record<string, string> {
  const { orgId, stableId: platformId, values, keyring } = options;
  return sealWanted(values.secrets, {
    keyring,
    stored: current?.secrets ?? {},
    placeOf: (field) => ({ orgId, agentId: values.agentId, platformId, field }),
    path: "secrets",
  });
}

/** The names of set secrets, without their values. */
export function masked(secrets: Record<string, string>): Json {
  return Object.fromEntries(Object.keys(secrets).map((key) => [key, "***"]));
}

/** Platforms per transaction of a rotation. */
const rotateBatchMax = 200;

/**
 * Seals all secrets of other keys with the current key, of all orgs, in batches, with one event
 * `secrets.rotated` for each org of a batch. A secret that cannot be opened is left and counted
 * (R9). May run beside a serving replica and again after a crash. For operators with the keys and
 * the database; no rpc calls it.
 */
export async function rotateSecrets(db: Db, keyring: Keyring): Promise<Rotated> {
  let rotated = 0;
  const failed: Rotated["failed"] = [];
  let after: { orgId: string; stableId: string } | undefined = { orgId: "", stableId: "" };
  while (after) {
    const batch = await rotateBatch(db, keyring, after);
    rotated += batch.rotated;
    failed.push(...batch.failed);
    after = batch.last;
  }
  return { rotated, failed };
}

async function rotateBatch(db: Db, keyring: Keyring, after: { orgId: string; stableId: string }) {
  return transaction(db, async (tx) => {
    const rows = await tx
      .selectFrom("platform")
      .select(["org_id", "stable_id", "agent_id", "secrets"])
      .where(sql<boolean>`(org_id, stable_id) > (${after.orgId}, ${after.stableId})`)
      .orderBy("org_id")
      .orderBy("stable_id")
      .limit(rotateBatchMax)
      .forUpdate()
      .execute();
    const rotation = beginRotation(keyring);
    for (const row of rows) {
      const place = { orgId: row.org_id, agentId: row.agent_id, platformId: row.stable_id };
      const secrets = Object.fromEntries(
        Object.entries(row.secrets).map(([field, stored]) => [
          field,
          rotation.reseal(stored, { ...place, field }, row.stable_id),
        ]),
      );
      if (Object.entries(secrets).every(([field, sealed]) => sealed === row.secrets[field])) continue;
      await tx
        .updateTable("platform")
        .set({ secrets: JSON.stringify(secrets) })
        .where("org_id", "=", row.org_id)
        .where("stable_id", "=", row.stable_id)
        .execute();
    }
    const last = rows.length < rotateBatchMax ? undefined : rows.at(-1);
    return {
      ...(await rotation.finish(tx)),
      last: last && { orgId: last.org_id, stableId: last.stable_id },
    };
  });
}
