/** The join codes that may enrol an installation known to the org. */
import { beforeEach, expect, test } from "vitest";
import * as credentials from "../../../src/store/people/credentials/credentials.ts";
import * as devices from "../../../src/store/people/devices/devices.ts";
import * as joinCodes from "../../../src/store/people/devices/join-codes.ts";
import { transaction } from "../../../src/store/pg/database.ts";
import type { Role } from "../../../src/store/pg/schema/schema-people.ts";
import * as enrolments from "../../../src/usecases/enrolments.ts";
import * as members from "../../../src/usecases/members.ts";
import { secretHash } from "../../../src/values/ids.ts";
import { useDatabase } from "../../support/database.ts";
import { untilBlocked } from "../../support/locks.ts";
import { surroundings } from "../../support/surroundings.ts";
import { addDevice, addTenant, type Tenant } from "../../support/tenants.ts";

const database = useDatabase();
const installId = "install-0001";
let owner: Tenant;
let bob: { orgId: string; userId: string };

beforeEach(async () => {
  owner = await addTenant(database.db, "acme");
  bob = await addMember("bob", "member");
});

async function addMember(name: string, role: Role): Promise<{ orgId: string; userId: string }> {
  const { member } = await members.add(
    database.db,
    {
      caller: null,
      requestId: "",
      orgId: "acme",
      email: `${name}@x.example`,
      name,
      role,
      tokenScopes: [],
      actor: "pinion",
    },
    surroundings,
  );
  return { orgId: "acme", userId: member.userId };
}

const leave = (person: { orgId: string; userId: string }, meanwhile = async () => {}) =>
  transaction(database.db, async (tx) => {
    const leaving = { ...person, actor: "pinion", caller: null, endsServices: false };
    await members.remove(tx, leaving, surroundings);
    await meanwhile();
  });

async function codeOf(userId: string | null): Promise<string> {
  const asked = { orgId: "acme", userId, expiresInMs: 60_000, tokenId: null, actor: "pinion" };
  return (await joinCodes.create(database.db, asked)).code;
}

function enroll(joinCode: string, as = installId) {
  const asked = { joinCode, installId: as, os: "linux", label: "taken", appVersion: "" } as const;
  return enrolments.enroll(database.db, asked, surroundings);
}

const deviceOf = (deviceId: string) => devices.find(database.db, { orgId: "acme", deviceId });
const refusal = {
  reason: "permission_denied",
  message:
    "this installation is enrolled for somebody else; ask them, or an owner or admin of the org, for the join code",
};

test("nobody takes over another's device by its install_id, and the attempt uses no code up", async () => {
  const laptop = await addDevice(database.db, bob, { installId });
  const eve = await addMember("eve", "member");
  for (const code of [await codeOf(eve.userId), await codeOf(null)]) {
    await expect(enroll(code)).rejects.toMatchObject(refusal);
    expect(await deviceOf(laptop.deviceId)).toMatchObject({ owner_id: bob.userId, label: "box" });
    const [credential] = await credentials.findByHashes(database.db, [secretHash(laptop.secret)]);
    expect(credential).toMatchObject({ isRevoked: false });
    // The code is still valid for a new installation.
    await enroll(code, `install-of-${code}`);
  }
});

test("an owner or admin enrols another's device again, and it stays that person's", async () => {
  const laptop = await addDevice(database.db, bob, { installId });
  const admin = await addMember("ada", "admin");
  for (const { userId } of [owner, admin]) {
    const again = await enroll(await codeOf(userId));
    expect(again.deviceId).toBe(laptop.deviceId);
    expect(await deviceOf(laptop.deviceId)).toMatchObject({ owner_id: bob.userId });
    const [credential] = await credentials.findByHashes(database.db, [secretHash(again.secret)]);
    expect(credential).toMatchObject({ userId: bob.userId });
  }
  // The role at the time of the code's use counts.
  const code = await codeOf(admin.userId);
  await addMember("ada", "member");
  await expect(enroll(code)).rejects.toMatchObject(refusal);
});

test("a device without an owner, or whose owner has left, is its next enroller's", async () => {
  const box = await enroll(await codeOf(null));
  expect(await deviceOf(box.deviceId)).toMatchObject({ owner_id: null });
  await enroll(await codeOf(null));
  await enroll(await codeOf(bob.userId));
  expect(await deviceOf(box.deviceId)).toMatchObject({ owner_id: bob.userId });

  await leave(bob);
  await expect(enroll(await codeOf(null))).rejects.toMatchObject(refusal);
  const eve = await addMember("eve", "member");
  await enroll(await codeOf(eve.userId));
  expect(await deviceOf(box.deviceId)).toMatchObject({ owner_id: eve.userId });
});

test("an admin who enrols a device while its owner leaves waits, and then is its owner", async () => {
  const laptop = await addDevice(database.db, bob, { installId });
  const code = await codeOf(owner.userId);
  let enrolled: Promise<enrolments.Enrolment> | undefined;
  await leave(bob, async () => {
    enrolled = enroll(code);
    await untilBlocked(database.db);
  });
  const { secret } = (await enrolled)!;
  expect(await deviceOf(laptop.deviceId)).toMatchObject({ owner_id: owner.userId });
  const [credential] = await credentials.findByHashes(database.db, [secretHash(secret)]);
  expect(credential).toMatchObject({ isRevoked: false, userId: owner.userId });
});
