"""Name parts and closed value lists of the fictional state-owned enterprises. Data only."""

BRANDS = ("华鼎恒海天长金泰盛宏远安正信通和新瑞", "岳川泽辰朔衡岱霖沃麟屹拓")
SECTORS = "控股 实业 产业 发展 投资 资本".split()

CENTRAL = "国务院国资委"
CITIES = {
    "山东省": ("济南", "青岛"),
    "江苏省": ("南京", "苏州"),
    "浙江省": ("杭州", "宁波"),
    "广东省": ("广州", "深圳"),
    "湖北省": ("武汉", "宜昌"),
    "湖南省": ("长沙", "株洲"),
    "四川省": ("成都", "绵阳"),
    "陕西省": ("西安", "宝鸡"),
    "河南省": ("郑州", "洛阳"),
    "安徽省": ("合肥", "芜湖"),
    "福建省": ("福州", "厦门"),
    "辽宁省": ("沈阳", "大连"),
}
# A closed list for each name part keeps chairmen and listed companies unique and yet learnable.
CHAIRMEN = (
    "王李张刘陈杨赵黄周吴徐孙马朱胡郭何高",
    "建国 志强 文博 国栋 永清 海涛 立新 卫东 宏伟 德明 学军 长林 振华 少华 兴邦 克勤".split(),
)
LISTED = ("锦景佳永丰祥嘉君宁欣立茂启隆凯利", "程力胜昌舟帆野桥原岩河谷峰光", ["股份"])

_FOUNDED = (
    "1952 1954 1956 1958 1965 1969 1972 1978 1981 1984 1986 1988 "
    "1990 1992 1994 1996 1998 2000 2002 2004 2007 2010 2014 2017"
).split()
_REVENUE = (
    "48 62 75 86 95 110 128 145 160 185 210 240 265 290 320 360 405 450 520 580 "
    "640 730 850 960 1080 1250 1430 1680 1950 2300"
).split()

VALUES = {
    "supervisor": [CENTRAL, *(f"{province}国资委" for province in CITIES)],
    "headquarters": ["北京", *(city for cities in CITIES.values() for city in cities)],
    "founded": [f"{year}年" for year in _FOUNDED],
    "business": (
        "煤炭开采 水力发电 风力发电 钢铁冶炼 铁路建设 公路建设 "
        "港口运输 航空制造 船舶修造 汽车制造 粮食储备 医药生产 "
        "城市供水 污水处理 天然气供应 石油化工 稀土开采 电力装备 "
        "轨道交通 物流仓储 房屋建筑 通信服务 食盐生产 旅游开发"
    ).split(),
    "revenue": [f"{amount}亿元" for amount in _REVENUE],
    "reform": (
        "混合所有制改革 员工持股计划 任期制和契约化管理 "
        "职业经理人制度 三项制度改革 专业化整合 战略性重组 "
        "管理层级压缩改革 科技型企业改革试点 国有资本投资公司试点 "
        "社会职能剥离工作 外部董事制度 公司制改革 整体上市改革"
    ).split(),
    "platform": [
        f"{field}实验室"
        for field in "深海工程 智能制造 绿色低碳 新型材料 储能技术 工业软件 精密仪器 特种焊接 "
        "生物医药 氢能利用 数字建造 无人驾驶 水处理 岩土力学".split()
    ],
}

# The three domain subjects: which attributes they examine.
SUBJECTS = {
    "企业概况": ("supervisor", "headquarters", "founded", "chairman"),
    "经营发展": ("business", "revenue", "subsidiary"),
    "改革创新": ("reform", "platform"),
}
