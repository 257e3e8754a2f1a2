/** The services on a replica's port: the API, the probes, the page, device streams. */
import { readFile } from "node:fs/promises";
import type { IncomingHttpHeaders } from "node:http";
import type { ReplicaConfig } from "../config.ts";
import { withCookies } from "../server/access/cookies.ts";
import { peerAddressOf } from "../server/access/peer.ts";
import { sortStrangers, strangerBytesMax } from "../server/access/strangers.ts";
import { createDeviceStreams } from "../server/device/stream/grpc-stream.ts";
import { withDocumentation } from "../server/http/documentation.ts";
import { withDownloads } from "../server/http/downloads.ts";
import { loadPage, withPage } from "../server/http/page.ts";
import { createHostCheck } from "../server/http/port/own-host.ts";
import { openPort, type Port } from "../server/http/port/port.ts";
import type { Handler } from "../server/http/port/requests.ts";
import { noProbe, openProbePort } from "../server/http/probe-port.ts";
import { withProbes } from "../server/http/probes.ts";
import { withHooks } from "../server/http/senders/hooks.ts";
import { withPlatformWebhooks } from "../server/http/senders/platform-webhooks.ts";
import type { Access } from "./access.ts";
import type { Foundation } from "./foundation.ts";
import { withProvider } from "./provider.ts";
import { type Own, serveRpc } from "./rpc.ts";
import type { Storage } from "./storage.ts";
import type { Work } from "./work.ts";

/** Number of connections for calls, reconnects and unknown peers, besides the devices'. */
const connectionsBesideStreams = 5_000;

/** Opens the port. `shutdownSignal` ends the open streams. */
export async function openReplicaPort(
  foundation: Foundation,
  storage: Storage,
  access: Access,
  work: Work,
  own: Own,
): Promise<Port> {
  const { config, log, lastLine } = foundation;
  const { messageBytesMax } = config.session;
  const { crowd } = own;
  const { guard, limits } = access;
  const common = { guard, limits, trustedProxies: config.trustedProxies, crowd };
  const streams = createDeviceStreams({ ...common, hub: work.hub, log, messageBytesMax });
  const rpcs = serveRpc(foundation, storage, access, work, own);
  const known = rpcs.handler(messageBytesMax);
  const stranger = rpcs.handler(strangerBytesMax);
  const takeCall = rpcs.takeCall(messageBytesMax);
  const sorted = sortStrangers({ ...common, isStream: known.isStream, known, stranger });
  const cookies = withCookies(sorted, { publicUrl: config.publicUrl });
  const rpc = await withProvider(cookies, { foundation, storage, access, work, poke: own.poke });
  const probes = probesOf(foundation, storage, work, own);
  if (config.probePort !== undefined) {
    const handler = withProbes({ ...probes, rpc: noProbe });
    const probePort = await openProbePort({ host: config.host, port: config.probePort, handler, lastLine });
    foundation.opened.defer(() => probePort.close());
  }
  const forBrowsers = withPages(withProbes({ ...probes, rpc }), foundation, work, probes.check);
  return openPort({
    host: config.host,
    port: config.port,
    log,
    lastLine,
    crowd,
    connectionsMax: config.session.streamsMax + connectionsBesideStreams,
    ...(config.tls ? { tls: await readTls(config.tls) } : {}),
    ...(config.session.isBare ? { takeStream: (...seen) => streams.take(...seen) ?? takeCall(...seen) } : {}),
    handler: withSenders(forBrowsers, { foundation, storage, access, work, own }),
  });
}

function probesOf({ config, metrics }: Foundation, { requests }: Storage, work: Work, own: Own) {
  const { host, publicUrl, trustedProxies, metricsToken } = config;
  return {
    ...{ health: own.health, db: requests.db, metrics, metricsToken },
    isBusUp: () => work.bus.isUp(),
    check: createHostCheck({ host, publicUrl, isBehindProxies: trustedProxies > 0 }),
  };
}

/** The page, the documentation and the programs to download. */
function withPages(
  next: Handler,
  { config }: Foundation,
  { offers }: Work,
  check: ReturnType<typeof createHostCheck>,
): Handler {
  const isBehindProxies = config.trustedProxies > 0;
  const pages = withDocumentation(withPage(next, loadPage(), check), check);
  return withDownloads(pages, { offers, publicUrl: config.publicUrl, isBehindProxies, check });
}

/** Hooks and chat platforms, whose senders have no token. */
function withSenders(
  next: Handler,
  parts: { foundation: Foundation; storage: Storage; access: Access; work: Work; own: Own },
): Handler {
  const { config, log } = parts.foundation;
  const { requests } = parts.storage;
  const { quotas } = parts.access;
  const { publisher, feed, hold } = parts.work;
  const { crowd, platforms } = parts.own;
  const addressOf = (headers: IncomingHttpHeaders, remoteAddress: string | undefined) =>
    peerAddressOf(headers, remoteAddress, config.trustedProxies);
  const common = { crowd, log, addressOf };
  const chats = withPlatformWebhooks(next, {
    ...common,
    publicUrl: config.publicUrl,
    take: async (platform, request) => (await platforms.speakers.find(platform))?.takeWebhook?.(request),
  });
  return withHooks(chats, {
    ...common,
    ...{ crossOrgDb: requests.db, db: requests.tenantDb },
    ...{ keyring: config.secrets.keyring, references: config.secrets.references },
    surroundings: { doorbell: publisher, quotas, hold },
    onEvents: (orgId) => feed.eventsAppended(orgId),
  });
}

async function readTls(tls: NonNullable<ReplicaConfig["tls"]>) {
  const [cert, key, ca] = await Promise.all([
    readFile(tls.certFile),
    readFile(tls.keyFile),
    tls.clientCaFile ? readFile(tls.clientCaFile) : undefined,
  ]);
  return ca ? { cert, key, ca, requestCert: true, rejectUnauthorized: true } : { cert, key };
}
