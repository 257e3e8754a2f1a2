import { create } from "@bufbuild/protobuf";
import {
  type Grant,
  type Grantee,
  GranteeSchema,
  GrantPermission,
  GrantSchema,
} from "#gen/pinion/v1/fleet_pb.js";
import type * as grants from "../../../store/people/devices/grants.ts";
import type * as rights from "../../../store/people/devices/rights.ts";
import { timestampOf } from "./moments.ts";

/** Grants between rows and messages. */

const permissionMessages: Record<rights.Permission, GrantPermission> = {
  use: GrantPermission.USE,
  manage: GrantPermission.MANAGE,
  read: GrantPermission.READ,
};

export function permissionNames(wanted: readonly GrantPermission[]): rights.Permission[] {
  return (Object.keys(permissionMessages) as rights.Permission[]).filter((name) =>
    wanted.includes(permissionMessages[name]),
  );
}

export function granteeOf({ kind }: Grantee): grants.Grantee {
  if (kind.case === "userId") return { userId: kind.value.toLowerCase() };
  if (kind.case === "tokenId") return { tokenId: kind.value.toLowerCase() };
  return "everyone";
}

export function grantMessage(row: grants.Grant): Grant {
  return create(GrantSchema, {
    ...{ id: row.id, deviceId: row.deviceId, deviceLabel: row.deviceLabel },
    grantee: granteeMessage(row.grantee),
    granteeName: row.granteeName,
    permission: permissionMessages[row.permission],
    grantedBy: row.grantedBy,
    createdAt: timestampOf(row.createdAt),
    firstUsedAt: timestampOf(row.firstUsedAt),
  });
}

function granteeMessage(grantee: grants.Grantee): Grantee {
  if (grantee === "everyone") return create(GranteeSchema, { kind: { case: "everyone", value: true } });
  return create(GranteeSchema, {
    kind:
      "userId" in grantee
        ? { case: "userId", value: grantee.userId }
        : { case: "tokenId", value: grantee.tokenId },
  });
}
