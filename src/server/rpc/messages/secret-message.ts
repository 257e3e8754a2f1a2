import { create } from "@bufbuild/protobuf";
import { SecretHolder, type SecretState, SecretStateSchema } from "#gen/pinion/v1/org_pb.js";
import { Refusal } from "../../../errors.ts";
import { isReference, type Keyring, type References, requireReference } from "../../../secrets.ts";
import type * as orgSecrets from "../../../store/people/orgs/org-secrets.ts";
import { timestampOf } from "./moments.ts";

/** What opens the secrets of an org: the keys, and the operator's values behind references. */
export type SecretSources = { keyring: Keyring; references: References };

const holderMessages: Record<orgSecrets.SecretHolder, SecretHolder> = {
  platform: SecretHolder.PLATFORM,
  destination: SecretHolder.DESTINATION,
  hook: SecretHolder.HOOK,
};

/** The message of a secret, without its value. */
export function secretMessage(
  row: orgSecrets.SecretRow,
  context: SecretSources & { orgId: string },
): SecretState {
  const isElsewhere = isReference(row.stored);
  return create(SecretStateSchema, {
    holder: holderMessages[row.holder],
    holderName: row.holderName,
    name: row.field,
    version: row.version,
    setAt: timestampOf(row.setAt),
    lastUsedAt: timestampOf(row.usedAt),
    pastGoodUntil: timestampOf(row.pastUntil),
    reference: isElsewhere ? row.stored : "",
    keyId: isElsewhere ? "" : (context.keyring.keyOf(row.stored)?.id ?? ""),
    problem: problemOf(row, context),
  });
}

/** The reason for which a secret cannot be used at present; empty: it can. */
function problemOf(
  { stored, field }: orgSecrets.SecretRow,
  { orgId, keyring, references }: SecretSources & { orgId: string },
): string {
  if (!isReference(stored)) {
    const key = keyring.keyOf(stored);
    if (key === undefined) return "it is malformed; set the secret again";
    if (key.isHere) return "";
    return `the server has no key "${key.id}"; put it into PINION_SECRET_KEYS behind the others, or set the secret again`;
  }
  try {
    const name = requireReference(stored, field);
    if (references.find(orgId, name) !== undefined) return "";
    return `the server has no ${stored} for this org; set PINION_SECRET_${name} and restart it`;
  } catch (error) {
    if (error instanceof Refusal) return error.message;
    throw error;
  }
}
