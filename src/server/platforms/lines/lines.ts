/** Opens lines of every kind. */
import type { Reach } from "../../../network/addresses.ts";
import type { Db } from "../../../store/pg/database.ts";
import type { Logger } from "../../../telemetry/log.ts";
import { wordsOf } from "../../destinations/answer.ts";
import { checkPlatform, platformKinds } from "../kinds.ts";
import { mask } from "../secrets.ts";
import type { StartablePlatform } from "../starter.ts";
import { type AdapterKind, adapterKinds, type Settings } from "./adapters.ts";
import { type Ear, type Line, PlatformRefused } from "./line.ts";
import type { Packages } from "./packages.ts";
import { createSdkLogger, openSdkLine } from "./sdk-line.ts";
import { createState } from "./state.ts";
import { openWebhookLine } from "./webhook-line.ts";

export type Lines = {
  /** The kinds that this server can run. */
  kinds: readonly string[];
  /** Asks the platform whether it serves the bot. Rejects with its words. */
  probe(platform: StartablePlatform, signal: AbortSignal): Promise<void>;
  /** `listens`: the line asks for messages, if its platform does not send them. */
  open(platform: StartablePlatform, how: { listens: boolean; ear: Ear }): Promise<Line>;
};

/** The path on our port to which a platform sends messages, with the name of the cell if any. */
export const webhookPath = (platform: { orgId: string; stableId: string }, cell: string) =>
  `/platforms/${cell && `${cell}_`}${platform.orgId}/${platform.stableId}`;

/** Whether the platform sends messages to our port; otherwise it is asked for them. */
export function usesWebhook(kind: string, secretNames: readonly string[]): boolean {
  const secrets = Object.fromEntries(secretNames.map((name) => [name, "set"]));
  const adapter = Object.hasOwn(adapterKinds, kind) ? adapterKinds[kind] : undefined;
  return kind === "webhook" || (adapter?.usesWebhook({ secrets }) ?? false);
}

export function createLines(deps: {
  db: Db;
  log: Logger;
  reach: Reach;
  packages: Packages;
  publicUrl: string | undefined;
  cell: string;
}): Lines {
  const { db, log, reach, packages, publicUrl, cell } = deps;

  function settingsOf(platform: StartablePlatform, kind: AdapterKind, listens: boolean, ear: Ear): Settings {
    const { config, secrets, orgId, stableId } = platform;
    const apiUrl = (config.api_url || kind.apiUrl).replace(/\/+$/, "");
    const own = log.child({ orgId, platform: stableId });
    return {
      ...{ config, secrets, apiUrl, listens, reach },
      webhookUrl: publicUrl && new URL(webhookPath(platform, cell), publicUrl).href,
      logger: createSdkLogger(own, ear, (text) => mask(text, secrets)),
    };
  }

  return {
    kinds: Object.keys(platformKinds).filter(
      (kind) => kind === "webhook" || packages.has(adapterKinds[kind]?.package ?? ""),
    ),
    async probe(platform, signal) {
      const kind = kindOf(platform);
      if (!kind) {
        const host = URL.parse(platform.secrets.url ?? "")?.hostname;
        if (host) await reach.requireHost(host);
        return;
      }
      await packages.load(platform.kind, kind.package);
      const silent: Ear = { heard: async () => {}, pressed: async () => {}, trouble: () => {} };
      try {
        await kind.probe(settingsOf(platform, kind, true, silent), signal);
      } catch (error) {
        if (error instanceof PlatformRefused) throw error;
        throw new Error(`${new URL(platform.config.api_url || kind.apiUrl).host}: ${wordsOf(error)}`);
      }
    },
    async open(platform, { listens, ear }) {
      const kind = kindOf(platform);
      if (!kind) {
        const { url, signing_secret: signingSecret } = platform.secrets;
        return openWebhookLine({ url, signingSecret, reach, ear, platform });
      }
      const { sdk, adapter } = await packages.load(platform.kind, kind.package);
      const settings = settingsOf(platform, kind, listens, ear);
      const state = createState(db, platform, kind);
      return openSdkLine({ kindName: platform.kind, kind, settings, sdk, adapter, state, ear });
    },
  };
}

/** The adapter of the platform's kind, if the kind has one. Refuses a platform that cannot run. */
function kindOf({ kind, config, secrets }: StartablePlatform): AdapterKind | undefined {
  checkPlatform({ kind, config, secretNames: Object.keys(secrets) });
  const url = config.api_url;
  if (url && !/^https?:$/.test(URL.parse(url)?.protocol ?? "")) {
    throw new PlatformRefused("config.api_url: not an http or https URL");
  }
  return adapterKinds[kind];
}
