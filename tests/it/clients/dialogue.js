// The quickstart's dialogue in Node: writes two secrets, reads them back, prints them.
'use strict'
const net = require('net')
const path = require('path')
const readline = require('readline')

const targets = ['node/OPENAI_API_KEY', 'node/AWS_SECRET_KEY']
const values = ['sk-proj-456', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY']
const connection = net.createConnection(path.join(process.env.XDG_RUNTIME_DIR, 'keychain-auth', 'agent.sock'))
const ask = (request) =>
  connection.write(JSON.stringify({ type: 'REQUEST', service: 'agentsecrets', targets, ...request }) + '\n')

const onReply = [
  (reply) => {
    if (reply.status !== 'success') {
      console.log('Write denied:', reply.reason)
      return connection.end()
    }
    ask({ action: 'read' })
  },
  (reply) => {
    for (const result of reply.results) console.log(result.target, result.value)
    connection.end()
  },
]
readline.createInterface({ input: connection }).on('line', (line) => {
  const next = onReply.shift()
  if (next) next(JSON.parse(line))
})
ask({ action: 'write', values })
