/** Orgs with people, devices and watchers in them, made through the store's public functions. */
import { randomUUID } from "node:crypto";
import * as agents from "../../src/store/agents/agents.ts";
import * as tokens from "../../src/store/people/credentials/tokens.ts";
import type * as devices from "../../src/store/people/devices/devices.ts";
import * as joinCodes from "../../src/store/people/devices/join-codes.ts";
import type { Db } from "../../src/store/pg/database.ts";
import { type Enrolment, enroll } from "../../src/usecases/enrolments.ts";
import { surroundings } from "./surroundings.ts";

export type Tenant = { orgId: string; userId: string; secret: string; tokenId: string };

/** An org with a default agent and a person whose token has all scopes. */
export async function addTenant(db: Db, orgId: string, scopes = ["read", "write", "admin"]): Promise<Tenant> {
  await db.insertInto("org").values({ id: orgId, name: orgId, default_agent_id: "pinion-default" }).execute();
  const user = await db.insertInto("user").values({ name: orgId }).returning("id").executeTakeFirstOrThrow();
  await db.insertInto("member").values({ org_id: orgId, user_id: user.id, role: "owner" }).execute();
  await agents.ensure(db, {
    orgId,
    agentId: "pinion-default",
    name: "Pinion",
    ownerId: user.id,
    settings: { identity: "x" },
  });
  const { token, secret } = await tokens.issue(db, {
    orgId,
    kind: "pat",
    label: "all",
    scopes,
    userId: user.id,
  });
  return { orgId, userId: user.id, secret, tokenId: token.id };
}

/** Enrols a device like its daemon. */
export async function addDevice(
  db: Db,
  tenant: { orgId: string; userId: string },
  options: { os?: devices.Os; label?: string; installId?: string } = {},
): Promise<Enrolment> {
  const { code } = await joinCodes.create(db, {
    tokenId: null,
    orgId: tenant.orgId,
    userId: tenant.userId,
    expiresInMs: 60_000,
    actor: "pinion",
  });
  const asked = {
    joinCode: code,
    installId: options.installId ?? randomUUID(),
    os: options.os ?? "linux",
    label: options.label ?? "box",
    appVersion: "1.0.0",
  };
  return enroll(db, asked, surroundings);
}
