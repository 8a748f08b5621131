"""The Dutch control words: 512 everyday nouns of which no two look or sound alike.

Any change gives the sessions under way other words. ``tests/unit/test_words.py`` holds the rules for the list.
"""

WORDS = tuple(
    """
    aanrecht aardbei aardewerk abrikoos accordeon accu agenda album alpaca ananas andijvie antenne appel aquarium
    architect armband artisjok astronaut atelier atlas auto avocado baars badeend badjas badkuip bakfiets baksteen
    balkon bamboe basilicum basketbal batterij beekje beitel berg beschuit beton bezem bioscoop biscuit bizon blad
    bloempot blouse boekentas boerderij bokaal bonbon boomhut boor borstel boterham braam bril broccoli broche
    brommer brug bureau cacao cadeau camera camper camping capuchon caravan cavia cello chauffeur chocola circus
    citroen computer confetti contrabas courgette croissant dadel dakgoot dambord danser deken deurbel deurklink
    diamant dijk dirigent doedelzak dolfijn domino douche draad drempel droogrek druif drumstel duin eekhoorn
    eierdop ekster eland emmer envelop esdoorn fabriek fakkel fazant fietsbel fietspad fietspomp flamingo fluweel
    fontein forel fornuis foto framboos garage garnaal gebak gember gieter giraf gitaar gletsjer glijbaan globe
    gordijn goud gras grot gymzaal haarspeld hagedis hagelslag hamer hamster handdoek hangmat haring hark harmonica
    haven havik hengel hert heuvel hoed hoefijzer hoepel honing horloge hulst iglo ijsbeker ijspegel inktvis jurk
    kaartspel kabelbaan kabeljauw kabouter kachel kajak kalender kalkoen kameleon kanaal kanarie kangoeroe kano
    kapstok karton kassa kastanje kasteel katoen kelder kers ketel ketting keuken kiezel kiosk kiwi klarinet klas
    klaver klei kleurboek klimop klok knijper knikker knoflook knoop koala koekenpan koelkast koffer koffie
    kokosnoot kolibrie komeet kompas konijn kookboek koraal kous kraai krant krater kreeft krekel kristal krokus
    kruimel kruispunt kruiwagen kust kwark ladder lampenkap lantaarn laptop lavendel leeuw lelie libel lift lijm
    lijster limoen limonade liniaal luchtbed luik luipaard maan macaroni machinist magneet mammoet mandarijn mango
    marionet markt marmer marmot marsepein matroos medaille melk menukaart metro meubel microfoon mixer moestuin mok
    monteur mosterd motor muesli museum muur narcis nectarine nestkast neushoorn nevel oceaan octopus oerwoud olijf
    ooievaar oorbel oprit orchidee orkest otter oven overhemd pakket paleis palm panda panfluit pannenlap panter
    pantoffel papegaai paperclip papier paprika paraplu parasol parel parkiet pasta pastei peddel pelikaan penseel
    perron perzik piano picknick piloot pindakaas pizza plafond plakband planeet plein podium pompoen pony poort
    popcorn porselein postzegel potlood prei printer punaise puzzel pyjama raaf rabarber radiator radijs radio rasp
    ratel regenboog regenjas regenton reiger rendier riem rijst rits rivier robot roodborst rooster rotonde rozijn
    rugzak rups salade sandaal sardine satelliet saxofoon schaar schaats schaduw schatkist schelp scherm schilder
    schildpad schip schoen schommel schoolbel schort schutting scooter servet skelter slagroom slee sleutel slinger
    sluis sneeuw snelweg snijplank snoek snorkel soeplepel spaarpot spaghetti specht speculaas speeltuin spiegel
    spijker spinazie spons spreeuw stadion stamppot stapelbed steenbok steiger stekker stempel stift stoel stoplicht
    stopwatch strandbal stroom stropdas struik studio stuur suikerpot surfplank taart tafel tapijt taxi tegel
    tekenblok tekening telefoon telescoop televisie tent terras theater theedoek theelepel theepot ticket toffee
    tomaat toren tosti toverstok tractor trap trechter trein tribune trombone trommel trompet tuba tuinhek tuinman
    tuinslang tulp tunnel vaas valk vallei vanille venkel verf veter veulen viaduct vijver viool vlaai vleermuis
    vlieger vliegtuig vlinder vloer voetbal vogelhuis vogelnest vonk vulkaan vuurvlieg walnoot walrus wandelpad
    wasmand waterval wegwijzer weiland wekker wereldbol werkbank wezel wiel wilg windmolen winkel woestijn wolf
    wombat wortel xylofoon yoghurt zaklamp zandbak zandloper zebrapad zeef zeehond zeemeeuw zeepaard zeester zeewier
    zeilboot zilver zolder zuurkool zwaan zwaluw zwembad zwemvest
    """.split()  # noqa: SIM905 - a list of literals takes 512 lines
)
