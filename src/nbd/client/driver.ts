/** Driver `nbd`: an export of an NBD server as a disk (N-1 to N-6). */
import { defineProtocol } from '../../core/driver.ts';
import { type OptionTree, option, parseOptions } from '../../core/options.ts';
import { BASE_ALLOCATION } from '../protocol.ts';
import { type NamedAddress, type NbdTarget, nbdName } from './address.ts';
import { type NbdOptions, openExport } from './open.ts';
import { nameOptions, parseServer, targetOf } from './target-options.ts';

const text = (help: string) => option.text<string | undefined>({ help, fallback: undefined });
const beyond = (help: string) => option.text<string | undefined>({ help, fallback: undefined, beyond: true });

const OPTIONS = {
  server: option.nested<NamedAddress | undefined>(
    'where the server is: type=inet with host and port, type=unix with path, type=fd with str',
    parseServer,
  ),
  host: text('host name or address of a server on TCP, instead of server'),
  port: text('its TCP port (default 10809)'),
  path: text('path of a unix socket, instead of server'),
  export: option.text({ help: 'name of the export', fallback: '' }),
  'tls-creds': text('id of the tls-creds object to encrypt with'),
  'tls-hostname': text('whom the certificate of the server must be for (default: host)'),
  'reconnect-delay': option.number({
    help: 'seconds that requests wait for a lost server to come back, before they fail',
    fallback: 0,
  }),
  'open-timeout': option.number({ help: 'seconds to wait at opening for a server that is not there yet', fallback: 0 }),
  'x-dirty-bitmap': text(`context whose extents are shown as block status, in place of ${BASE_ALLOCATION}`),
  'meta-context': beyond('the same'),
  tls: option.boolean({ help: 'encrypt, with the credentials below or default ones', fallback: false, beyond: true }),
  'tls-username': beyond('who the client is, with shared keys'),
  'tls-certificates': beyond('folder of certificates'),
  'tls-psk-file': beyond('file of shared keys'),
  'tls-verify-peer': option.boolean<boolean | undefined>({
    help: 'whether the certificate of the server must be valid (default on)',
    fallback: undefined,
    beyond: true,
  }),
};

export const nbd = defineProtocol<NbdOptions>({
  name: 'nbd',
  summary: 'A disk on an NBD server, over TCP or a unix socket',
  prefixes: ['nbd', 'nbd+tcp', 'nbd+unix', 'nbd+vsock', 'nbds', 'nbds+tcp', 'nbds+unix', 'nbds+vsock'],
  reusable: true,
  options: OPTIONS,
  strongOptions: [
    ...['server', 'host', 'port', 'path', 'export', 'tls-creds', 'tls-hostname'],
    ...['tls', 'tls-username', 'tls-certificates', 'tls-psk-file', 'tls-verify-peer'],
  ],
  parseFilename: nameOptions,
  exactFilename,
  open: openExport,
});

/** Undefined for options that lead nowhere. */
function exactFilename(tree: OptionTree): string | undefined {
  try {
    const { values } = parseOptions<NbdOptions>(OPTIONS, tree);
    const keys: Partial<Record<'username' | 'tlsCertificates' | 'tlsPskFile' | 'tlsHostname', string | undefined>> = {
      username: values['tls-username'],
      tlsCertificates: values['tls-certificates'],
      tlsPskFile: values['tls-psk-file'],
      tlsHostname: values['tls-hostname'],
    };
    const given = Object.fromEntries(Object.entries(keys).filter(([, value]) => value !== undefined));
    const verify = values['tls-verify-peer'];
    const tls: Omit<NbdTarget, 'address' | 'export'> = values.tls
      ? { tls: 'require', ...given, ...(verify !== undefined && { tlsVerifyPeer: verify }) }
      : { tls: 'off' };
    return nbdName({ ...targetOf(values), ...tls });
  } catch {
    return undefined;
  }
}
