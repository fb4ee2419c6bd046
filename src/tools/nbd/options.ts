/** The options of qemu-nbd's command line, and ours beyond it (N-110). */
import type { OptionSpec } from '../command-line/getopt.ts';

export interface OptionGroup {
  readonly title: string;
  readonly options: readonly OptionSpec[];
}

export const GROUPS: readonly OptionGroup[] = [
  {
    title: 'Clients and exports',
    options: [
      { short: 'h', long: 'help', help: 'show this help' },
      { short: 'V', long: 'version', help: 'show the version' },
      { short: 'p', long: 'port', argument: 'PORT', help: "TCP port to listen on (default `10809')" },
      {
        short: 'b',
        long: 'bind',
        argument: 'IFACE',
        help: 'address or host name to listen on (default: this machine only)',
      },
      {
        short: 'k',
        long: 'socket',
        argument: 'PATH',
        help: 'listen on a unix socket, whose file only its owner may use',
      },
      { short: 'e', long: 'shared', argument: 'NUM', help: "clients at once, 0 for any number (default `1')" },
      { short: 't', long: 'persistent', help: 'go on when the last client has left' },
      { short: 'v', long: 'verbose', help: 'say more' },
      { short: 'x', long: 'export-name', argument: 'NAME', help: 'name of the export (default: the empty one)' },
      { short: 'D', long: 'description', argument: 'TEXT', help: 'text about the export, for people' },
      {
        long: 'export',
        argument: 'KEYS',
        help: 'one more export: name=,file= or node=,format=,description=,bitmap=,read-only=,offset=,size=',
      },
      { long: 'default-export', argument: 'NAME', help: 'which export clients get that name none' },
      { long: 'stdio', help: 'serve one client on standard input and output' },
    ],
  },
  {
    title: 'Part of the image, and facts about it',
    options: [
      { short: 'o', long: 'offset', argument: 'OFFSET', help: 'where in the image the export begins, bytes' },
      { short: 'A', long: 'allocation-depth', help: 'let clients ask which layer holds what' },
      {
        short: 'B',
        long: 'bitmap',
        argument: 'NAME',
        help: 'let clients ask what a dirty bitmap says; may be repeated',
      },
    ],
  },
  {
    title: 'General',
    options: [
      { short: 'L', long: 'list', help: 'list what another NBD server exports' },
      { long: 'object', argument: 'type,id=ID,...', help: 'a secret, TLS credentials or who may connect' },
      { long: 'tls-creds', argument: 'ID', help: 'use TLS, with the credentials object of this id' },
      { long: 'tls-authz', argument: 'ID', help: 'let in only whom the authorization object of this id lets in' },
      { long: 'tls-hostname', argument: 'NAME', help: 'with -L: host name that the certificate must be for' },
      { short: 'T', long: 'trace', argument: 'TRACE', help: 'accepted; there is nothing to trace' },
      { long: 'fork', help: 'serve in the background; return when clients can connect' },
      { long: 'pid-file', argument: 'PATH', help: 'file for the number of the serving process' },
      { long: 'selinux-label', argument: 'LABEL', help: 'refused: not supported', unavailable: true },
      {
        long: 'handshake-timeout',
        argument: 'SECONDS',
        help: "for clients to choose an export (default `10', 0: no limit)",
      },
      { long: 'idle-timeout', argument: 'SECONDS', help: 'cut off clients that ask for nothing (default: never)' },
      { long: 'grace', argument: 'SECONDS', help: "for requests under way when the server stops (default `5')" },
    ],
  },
  {
    title: 'Kernel devices: not supported',
    options: [
      { short: 'c', long: 'connect', argument: 'DEV', help: 'refused: see nbd-client(8)' },
      { short: 'd', long: 'disconnect', help: 'refused: see nbd-client(8)' },
    ],
  },
  {
    title: 'The image',
    options: [
      { short: 'f', long: 'format', argument: 'FORMAT', help: 'image format (default: probed)' },
      { short: 'r', long: 'read-only', help: 'export for reading only' },
      { short: 's', long: 'snapshot', help: 'keep what is written in a temporary overlay' },
      { short: 'l', long: 'load-snapshot', argument: 'SNAPSHOT_PARAM', help: 'export an internal snapshot' },
      { short: 'n', long: 'nocache', help: "bypass the host's cache" },
      {
        long: 'cache',
        argument: 'MODE',
        help: "`none', `writeback' (default), `writethrough', `directsync' or `unsafe'",
      },
      { long: 'aio', argument: 'MODE', help: 'native, io_uring or threads; all work alike' },
      { long: 'discard', argument: 'MODE', help: 'ignore (default) or unmap' },
      { long: 'detect-zeroes', argument: 'MODE', help: 'off (default), on or unmap' },
      { long: 'image-opts', help: 'FILE is a string of options' },
    ],
  },
];

export const OPTIONS: readonly OptionSpec[] = GROUPS.flatMap(({ options }) => options);
