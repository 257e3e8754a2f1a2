import { cellOf } from "./cell.ts";
import type { TlsOptions } from "./device/transport.ts";
import type { Os } from "./gen/pinion/v1/device_pb.js";
import { currentOs, ensureInstallId, type Identity, saveIdentity } from "./identity.ts";
import type { ProxySetting } from "./network/proxy.ts";
import { createClients } from "./ops/clients.ts";
import { CLIENT_VERSION } from "./version.ts";

/** An installation's identity, and facts that are told once. */
export type Enrolled = Identity & {
  /** Other devices of the org with the same label. */
  sameLabelCount: number;
};

export interface EnrollOptions {
  url: string;
  /** From `FleetService.CreateJoinCode`; valid for one enrolment. */
  joinCode: string;
  /** Shown to people, 1 to 100 bytes. */
  label: string;
  stateDir: string;
  os?: Os;
  appVersion?: string;
  tls?: TlsOptions;
  /** Left out: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY apply. */
  proxy?: ProxySetting;
  signal?: AbortSignal;
  /** Receives the token; the token is then not stored with the identity. */
  keepToken?: (token: string) => Promise<void> | void;
}

/**
 * Turns a join code into this installation's identity and stores the identity. A repeat with a new
 * code gives the same device a new token. Throws a PinionError: `unauthenticated` if the code is
 * unknown, used or expired.
 */
export async function enroll(options: EnrollOptions): Promise<Enrolled> {
  const installId = await ensureInstallId(options.stateDir);
  const clients = createClients({
    url: options.url,
    cell: cellOf(options.joinCode),
    // The same protocol as the stream, so an intermediary without gRPC is noticed at enrolment.
    protocol: "grpc",
    ...(options.tls === undefined ? {} : { tls: options.tls }),
    ...(options.proxy === undefined ? {} : { proxy: options.proxy }),
  });
  try {
    const response = await clients.device.enroll(
      {
        joinCode: options.joinCode,
        installId,
        os: options.os ?? currentOs(),
        label: options.label,
        appVersion: options.appVersion ?? CLIENT_VERSION,
      },
      options.signal === undefined ? {} : { signal: options.signal },
    );
    const { deviceId, orgId, token } = response;
    const identity: Identity = { installId, deviceId, orgId, token, url: options.url };
    await options.keepToken?.(token);
    await saveIdentity(
      options.stateDir,
      options.keepToken === undefined ? identity : { ...identity, token: "" },
    );
    return { ...identity, sameLabelCount: response.sameLabelCount };
  } finally {
    clients.close();
  }
}
