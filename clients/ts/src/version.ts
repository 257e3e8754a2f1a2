/** The client's version, sent as `app_version` unless the caller gives another. */
export const CLIENT_VERSION = "0.1.0";
