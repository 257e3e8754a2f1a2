/** A hand-driven fleet worker, over a stream like a device's. */
import { randomUUID } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { createClients } from "@pinion/client";
import type { HelloSchema, Welcome } from "#gen/pinion/v1/device_pb.js";
import { TokenKind } from "#gen/pinion/v1/token_pb.js";
import { connect, type DeviceStream, type Identity } from "./device.ts";

type Clients = ReturnType<typeof createClients>;

export type FleetToken = { id: string; secret: string };

/** A service's token of scope fleet:run. */
export async function fleetToken(clients: Clients): Promise<FleetToken> {
  const { token, secret } = await clients.tokens.createToken({
    label: "fleet",
    kind: TokenKind.SVC,
    scopes: ["fleet:run"],
  });
  return { id: token!.id, secret };
}

/** An installation under a token; its device id is known after the welcome. */
export function workerIdentity(token: FleetToken, label = `worker-${randomUUID().slice(0, 8)}`): Identity {
  return { deviceId: "", installId: randomUUID(), token: token.secret, label };
}

/** Connects a worker, and sets the id in its identity. */
export async function connectWorker(
  url: string,
  identity: Identity,
  hello: MessageInitShape<typeof HelloSchema> = {},
): Promise<DeviceStream & { welcome: Welcome }> {
  const stream = await connect(url, identity, { label: identity.label, ...hello });
  identity.deviceId = stream.welcome.deviceId;
  return stream;
}
