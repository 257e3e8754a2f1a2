import type { Adapter, Logger } from "chat";
import type { Reach } from "../../../network/addresses.ts";
import { agentOf, ask, assertionOf, credentialsOf, googleTokens, required, said } from "./adapter-calls.ts";
import { answerBytesMax } from "./confined.ts";

export type Settings = {
  config: Readonly<Record<string, string>>;
  secrets: Readonly<Record<string, string>>;
  /** `config.api_url`, or the platform's own address. */
  apiUrl: string;
  /** The address of the platform's webhook under PINION_PUBLIC_URL, if the server has one. */
  webhookUrl: string | undefined;
  /**
   * The instance asks the platform for messages, or connects to the platform; otherwise it only
   * sends.
   */
  listens: boolean;
  logger: Logger;
  reach: Reach;
};

export type AdapterKind = {
  package: string;
  /** The platform's own address. */
  apiUrl: string;
  /** The platform sends messages to our port, with these settings. */
  usesWebhook(settings: Pick<Settings, "secrets">): boolean;
  /**
   * Asks the platform for the bot's name. Rejects with a PlatformRefused, or an error of the
   * network.
   */
  probe(settings: Settings, signal: AbortSignal): Promise<void>;
  /**
   * The options of the adapter's constructor: all of them, so that no environment variable counts.
   */
  options(settings: Settings): Record<string, unknown>;
  create: string;
  textMax: number;
  editEveryMs: number;
  canEdit: boolean;
  /** A thread holds one conversation, so that messages after the first need no mention. */
  hasThreads: boolean;
  /** Listens until the signal aborts; for platforms without webhooks for messages. */
  listen?: (adapter: Adapter, signal: AbortSignal) => Promise<void>;
  /** The adapter's thread for a person's name of a chat. */
  threadOf?: (adapter: Adapter, chat: string) => string;
};

/** Milliseconds that one connection to Discord's gateway lasts. */
const gatewayMs = 3_600_000;

export const adapterKinds: Readonly<Record<string, AdapterKind>> = {
  telegram: {
    package: "@chat-adapter/telegram",
    apiUrl: "https://api.telegram.org",
    create: "createTelegramAdapter",
    usesWebhook: ({ secrets }) => Boolean(secrets.webhook_secret),
    async probe({ apiUrl, secrets, webhookUrl, reach, listens }, signal) {
      const call = (method: string, body: object = {}) =>
        ask(reach, signal, `${apiUrl}/bot${encodeURIComponent(required(secrets, "bot_token"))}/${method}`, {
          body,
        });
      said("Telegram", await call("getMe"), "description");
      if (!secrets.webhook_secret || !webhookUrl || !listens) return;
      const wanted = { url: webhookUrl, secret_token: secrets.webhook_secret };
      said("Telegram", await call("setWebhook", wanted), "description");
    },
    options: ({ config, secrets, apiUrl, listens, logger }) => ({
      botToken: secrets.bot_token,
      apiUrl,
      logger,
      allowedUserIds: [],
      businessMode: false,
      mentionOnReply: true,
      ...(config.user_name ? { userName: config.user_name } : {}),
      // An instance that only sends asks for no messages.
      mode: listens && !secrets.webhook_secret ? "polling" : "webhook",
      secretToken: secrets.webhook_secret ?? "",
      allowUnverifiedWebhooks: !secrets.webhook_secret,
      longPolling: { timeout: 30, allowedUpdates: ["message", "callback_query"] },
    }),
    // Telegram's limit is 4,096; marks that the adapter adds count.
    textMax: 3_000,
    editEveryMs: 1_100,
    canEdit: true,
    hasThreads: false,
    threadOf: (_, chat) => `telegram:${chat}`,
  },
  slack: {
    package: "@chat-adapter/slack",
    apiUrl: "https://slack.com/api",
    create: "createSlackAdapter",
    usesWebhook: ({ secrets }) => !secrets.app_token,
    async probe({ apiUrl, secrets, reach }, signal) {
      const headers = { authorization: `Bearer ${secrets.bot_token}` };
      said("Slack", await ask(reach, signal, `${apiUrl}/auth.test`, { body: {}, headers }), "error");
    },
    options: ({ secrets, apiUrl, listens, logger, reach }) => ({
      botToken: secrets.bot_token,
      signingSecret: secrets.signing_secret,
      apiUrl: `${apiUrl}/`,
      logger,
      nativeStreaming: false,
      ...(secrets.app_token && listens
        ? { mode: "socket", appToken: secrets.app_token }
        : { mode: "webhook" }),
      webClientOptions: {
        agent: agentOf(apiUrl, reach),
        // The reply's row causes the next try, so that no call waits for half an hour.
        retryConfig: { retries: 1 },
        rejectRateLimitedCalls: true,
        timeout: 15_000,
        // Its client has requests of its own, and no bound on answers.
        requestInterceptor: (request: object) => ({ ...request, maxContentLength: answerBytesMax }),
      },
    }),
    textMax: 11_000,
    editEveryMs: 1_000,
    canEdit: true,
    hasThreads: true,
    threadOf: (_, chat) => `slack:${chat}:`,
  },
  discord: {
    package: "@chat-adapter/discord",
    apiUrl: "https://discord.com/api/v10",
    create: "createDiscordAdapter",
    usesWebhook: () => true,
    async probe({ apiUrl, secrets, reach }, signal) {
      const headers = { authorization: `Bot ${secrets.bot_token}` };
      said("Discord", await ask(reach, signal, `${apiUrl}/users/@me`, { headers }), "message");
    },
    options: ({ config, secrets, apiUrl, logger }) => ({
      botToken: secrets.bot_token,
      applicationId: config.application_id,
      publicKey: config.public_key,
      mentionRoleIds: [],
      apiUrl,
      logger,
    }),
    textMax: 1_900,
    editEveryMs: 1_500,
    canEdit: true,
    hasThreads: true,
    async listen(adapter, signal) {
      const gateway = adapter as Adapter & {
        startGatewayListener(
          options: { waitUntil(task: Promise<unknown>): void },
          durationMs: number,
          signal: AbortSignal,
        ): Promise<Response>;
      };
      while (!signal.aborted) {
        const tasks: Promise<unknown>[] = [];
        await gateway.startGatewayListener({ waitUntil: (task) => tasks.push(task) }, gatewayMs, signal);
        await Promise.all(tasks);
      }
    },
  },
  whatsapp: {
    package: "@chat-adapter/whatsapp",
    apiUrl: "https://graph.facebook.com",
    create: "createWhatsAppAdapter",
    usesWebhook: () => true,
    async probe({ apiUrl, config, secrets, reach }, signal) {
      const url = `${apiUrl}/v25.0/${encodeURIComponent(required(config, "phone_number_id"))}`;
      const headers = { authorization: `Bearer ${secrets.access_token}` };
      said("WhatsApp", await ask(reach, signal, url, { headers }), "error");
    },
    options: ({ config, secrets, apiUrl, logger }) => ({
      accessToken: secrets.access_token,
      appSecret: secrets.app_secret,
      verifyToken: secrets.verify_token,
      phoneNumberId: config.phone_number_id,
      userName: config.user_name ?? "pinion",
      apiUrl,
      logger,
    }),
    textMax: 4_000,
    editEveryMs: 0,
    canEdit: false,
    hasThreads: false,
  },
  teams: {
    package: "@chat-adapter/teams",
    apiUrl: "https://smba.trafficmanager.net/teams/",
    create: "createTeamsAdapter",
    usesWebhook: () => true,
    async probe({ config, secrets, reach }, signal) {
      const tenant = encodeURIComponent(config.app_tenant_id || "botframework.com");
      const body = new URLSearchParams({
        grant_type: "client_credentials",
        client_id: required(config, "app_id"),
        client_secret: required(secrets, "app_password"),
        scope: "https://api.botframework.com/.default",
      });
      const url = `https://login.microsoftonline.com/${tenant}/oauth2/v2.0/token`;
      said("Microsoft", await ask(reach, signal, url, { form: body }), "error_description");
    },
    options: ({ config, secrets, apiUrl, logger }) => ({
      appId: config.app_id,
      appPassword: secrets.app_password,
      appTenantId: config.app_tenant_id ?? "",
      appType: config.app_tenant_id ? "SingleTenant" : "MultiTenant",
      ...(config.api_url ? { apiUrl } : {}),
      logger,
    }),
    textMax: 20_000,
    editEveryMs: 1_500,
    canEdit: true,
    hasThreads: true,
  },
  github: {
    package: "@chat-adapter/github",
    apiUrl: "https://api.github.com",
    create: "createGitHubAdapter",
    usesWebhook: () => true,
    async probe({ apiUrl, secrets, reach }, signal) {
      const headers = { authorization: `Bearer ${secrets.token}`, "user-agent": "pinion" };
      said("GitHub", await ask(reach, signal, `${apiUrl}/user`, { headers }), "message");
    },
    options: ({ config, secrets, apiUrl, logger }) => ({
      token: secrets.token,
      webhookSecret: secrets.webhook_secret,
      userName: config.user_name ?? "pinion",
      apiUrl,
      logger,
    }),
    textMax: 60_000,
    editEveryMs: 5_000,
    canEdit: true,
    hasThreads: true,
  },
  gchat: {
    package: "@chat-adapter/gchat",
    apiUrl: "https://chat.googleapis.com/",
    create: "createGoogleChatAdapter",
    usesWebhook: () => true,
    async probe({ secrets, reach }, signal) {
      const assertion = assertionOf(credentialsOf(required(secrets, "credentials")));
      const form = new URLSearchParams({
        grant_type: "urn:ietf:params:oauth:grant-type:jwt-bearer",
        assertion,
      });
      said("Google", await ask(reach, signal, googleTokens, { form }), "error_description");
    },
    options: ({ config, secrets, apiUrl, webhookUrl, logger }) => ({
      credentials: credentialsOf(required(secrets, "credentials")),
      ...(config.project_number ? { googleChatProjectNumber: config.project_number } : {}),
      ...(webhookUrl ? { endpointUrl: webhookUrl } : {}),
      ...(config.api_url ? { apiUrl } : {}),
      logger,
    }),
    textMax: 4_000,
    editEveryMs: 1_500,
    canEdit: true,
    hasThreads: true,
  },
  linear: {
    package: "@chat-adapter/linear",
    apiUrl: "https://api.linear.app/graphql",
    create: "createLinearAdapter",
    usesWebhook: () => true,
    async probe({ apiUrl, secrets, reach }, signal) {
      const headers = { authorization: required(secrets, "api_key") };
      const body = { query: "{ viewer { id } }" };
      said("Linear", await ask(reach, signal, apiUrl, { body, headers }), "errors");
    },
    options: ({ config, secrets, apiUrl, logger }) => ({
      apiKey: secrets.api_key,
      webhookSecret: secrets.webhook_secret,
      userName: config.user_name ?? "pinion",
      ...(config.api_url ? { apiUrl } : {}),
      logger,
    }),
    textMax: 60_000,
    editEveryMs: 5_000,
    canEdit: true,
    hasThreads: true,
  },
};
