import { isReference, type Keyring, type SecretPlace } from "../../../secrets.ts";
import type { Db } from "../../pg/database.ts";
import * as events from "../../work/service/events.ts";

/**
 * A secret that could not be opened: `stableId` is the id of a platform, or the slug of a
 * destination or hook.
 */
export type UnopenedSecret = { orgId: string; stableId: string; field: string };
export type Rotated = { rotated: number; failed: UnopenedSecret[] };

/**
 * One transaction's part of a rotation: what was sealed anew per org, and what could not be opened.
 */
export type Rotation = {
  /**
   * The secret sealed with the current key; unchanged if it is a reference, is sealed so already,
   * or cannot be opened (R9).
   */
  reseal(stored: string, place: SecretPlace, stableId: string): string;
  /** Appends `secrets.rotated` for each org; the transaction's last statement. */
  finish(tx: Db): Promise<Rotated>;
};

export function beginRotation(keyring: Keyring): Rotation {
  const perOrg = new Map<string, number>();
  const failed: UnopenedSecret[] = [];
  return {
    reseal(stored, place, stableId) {
      if (isReference(stored) || !keyring.isOutdated(stored)) return stored;
      const { orgId, field } = place;
      try {
        const sealed = keyring.seal(keyring.open(stored, place), place);
        perOrg.set(orgId, (perOrg.get(orgId) ?? 0) + 1);
        return sealed;
      } catch {
        failed.push({ orgId, stableId, field });
        return stored;
      }
    },
    async finish(tx) {
      await events.appendAll(
        tx,
        [...perOrg].map(([orgId, count]) => ({
          orgId,
          kind: "secrets.rotated",
          actor: "pinion",
          data: { count, key_id: keyring.currentKeyId ?? "" },
        })),
      );
      return { rotated: [...perOrg.values()].reduce((sum, count) => sum + count, 0), failed };
    },
  };
}
